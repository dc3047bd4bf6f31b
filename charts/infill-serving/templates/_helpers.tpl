{{- define "infill.labels" -}}
app.kubernetes.io/name: infill
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "infill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "infill.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "infill.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "infill.environment" -}}
env:
  - {name: HOME, value: /cache}
  - {name: HF_HOME, value: /cache/huggingface}
  - {name: MPLCONFIGDIR, value: /cache/matplotlib}
  - {name: NUMBA_CACHE_DIR, value: /cache/numba}
  - {name: TRITON_CACHE_DIR, value: /cache/triton}
  - {name: VLLM_CACHE_ROOT, value: /cache/vllm}
  - {name: XDG_CACHE_HOME, value: /cache}
  - {name: AWS_DEFAULT_REGION, value: {{ .Values.objectStore.region | quote }}}
  {{- with .Values.objectStore.endpoint }}
  - {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
  {{- end }}
envFrom:
  - secretRef: {name: {{ .Values.objectStore.secretName }}}
{{- end }}

{{- define "infill.lifecycle" -}}
# A pod that is to end gets new connections until every node knows that.
lifecycle:
  preStop:
    sleep: {seconds: 5}
startupProbe:
  httpGet: {path: {{ .path }}, port: 8080}
  periodSeconds: 5
  failureThreshold: {{ divf .seconds 5 | ceil | int }}
readinessProbe:
  httpGet: {path: {{ .path }}, port: 8080}
  periodSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: {{ .live }}, port: 8080}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
{{- end }}

{{- define "infill.scaling" -}}
minReplicas: {{ .component.minReplicas }}
maxReplicas: {{ max .component.minReplicas .component.maxReplicas }}
{{- end }}

{{- define "infill.engines" -}}
{{- eq .Values.predictor.engine "auto" | ternary (list "embedded" "vllm") (list .Values.predictor.engine) | toYaml }}
{{- end }}

{{- define "infill.check" -}}
{{- if gt (len .Release.Name) 40 }}
{{- fail "the release's name must have at most 40 characters, since Services are named after it" }}
{{- end }}
{{- if and (eq .Values.autoscaling.kind "keda") (not (and .Values.monitoring.enabled .Values.monitoring.predictor)) }}
{{- fail "autoscaling.kind keda reads the predictor's metrics from Prometheus: set monitoring.enabled and monitoring.predictor" }}
{{- end }}
{{- if and (eq .Values.autoscaling.kind "keda") (gt (len .Release.Name) 36) }}
{{- fail "autoscaling.kind keda finds the predictor's pods by their names, which Kubernetes cuts: the release's name must have at most 36 characters" }}
{{- end }}
{{- if and (eq .Values.autoscaling.kind "hpa") (gt (int .Values.autoscaling.target) 100) }}
{{- fail "autoscaling.target is per cent of the CPU request with kind hpa: KServe takes at most 100" }}
{{- end }}
{{- if and .Values.model.uri (eq .Values.predictor.engine "auto") }}
{{- fail "predictor.engine auto works only with `infill deploy`: with model.uri set it to embedded or vllm" }}
{{- end }}
{{- end }}

{{- define "infill.dns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}

{{- define "infill.objectStoreEgress" -}}
- ports:
    - {protocol: TCP, port: {{ .Values.objectStore.port }}}
  {{- with .Values.objectStore.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
