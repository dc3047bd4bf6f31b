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

{{- define "infill.mlflowUrl" -}}
{{- if .Values.mlflow.enabled -}}
http://{{ .Release.Name }}-mlflow.{{ .Release.Namespace }}:5000
{{- else -}}
{{ .Values.mlflow.externalUrl }}
{{- end -}}
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

{{/* Names of the Secrets whose keys steps and stages have in their environment. */}}
{{- define "infill.jobSecrets" -}}
- {{ .Values.objectStore.secretName | quote }}
{{- if .Values.mlflow.auth.enabled }}
- {{ .Values.mlflow.auth.clientSecret | quote }}
{{- end }}
{{- end }}
