{{/*
The one home of the InferenceService's shape. Takes root, engine, manager, and what belongs to one model: name, uri,
digest, deployment. With those as `${...}` it is the template that `infill deploy` fills in.
*/}}
{{- define "infill.inferenceservice" -}}
{{- $values := .root.Values }}
{{- $release := .root.Release.Name }}
{{- $namespace := .root.Release.Namespace }}
{{- $engine := index $values.predictor .engine }}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {{ .name | quote }}
  labels: {{- set (include "infill.labels" .root | fromYaml) "app.kubernetes.io/managed-by" .manager | toYaml | nindent 4 }}
    # No Ingress or HTTPRoute by KServe: they would bypass the Service, one of them leading to the bare predictor.
    networking.kserve.io/visibility: cluster-local
  annotations:
    serving.kserve.io/deploymentMode: Standard
    serving.kserve.io/autoscalerClass: {{ $values.autoscaling.kind }}
    infill.dev/model-uri: {{ .uri | quote }}
    infill.dev/model-digest: {{ .digest | quote }}
    infill.dev/deployment: {{ .deployment | quote }}
spec:
  predictor:
    {{- include "infill.scaling" (dict "component" $values.predictor) | nindent 4 }}
    {{- if eq $values.autoscaling.kind "hpa" }}
    scaleMetric: cpu
    scaleTarget: {{ $values.autoscaling.target }}
    {{- else if eq $values.autoscaling.kind "keda" }}
    autoScaling:
      metrics:
        - type: External
          external:
            metric:
              backend: prometheus
              serverAddress: {{ $values.autoscaling.prometheus }}
              # Select only this InferenceService, since the previous one still exists.
              query: >-
                sum({{ eq .engine "vllm" | ternary "vllm:num_requests_waiting" "infill_predictor_queue_length" -}}
                {namespace="{{ $namespace }}", pod=~"{{ .name }}-predictor-.*"})
            target: {type: Value, value: {{ $values.autoscaling.target | quote }}}
    {{- end }}
    labels:
      app.kubernetes.io/instance: {{ $release }}
      infill.dev/component: predictor
    serviceAccountName: {{ $release }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    terminationGracePeriodSeconds: 90
    {{- include "infill.pullSecrets" .root | nindent 4 }}
    securityContext: {{- include "infill.podSecurity" . | nindent 6 }}
    {{- with $engine.nodeSelector }}
    nodeSelector: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $engine.tolerations }}
    tolerations: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $values.predictor.priorityClass }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- if eq .engine "vllm" }}
    model:
      modelFormat: {name: infill, version: "1"}
      runtime: {{ $release }}-vllm
      # Set here and not only in the runtime, so that an upgrade of the chart does not change a deployed model.
      image: {{ $values.images.vllm }}
      storageUri: {{ .uri | quote }}
      {{- /* KServe appends these to the runtime's own arguments. */}}
      {{- with $engine.args }}
      args: {{- toYaml . | nindent 8 }}
      {{- end }}
      resources: {{- toYaml $engine.resources | nindent 8 }}
    {{- else }}
    # A container of ours, which reads the object store itself. KServe takes a `model` without storageUri for the empty
    # server of its TrainedModels, and puts its agent before it (`IsMMSPredictor`).
    {{- $arguments := concat (include "infill.modelArgs" . | fromYamlArray) $engine.args }}
    {{- include "infill.predictorPod" (dict "root" .root "engine" .engine "arguments" $arguments) | nindent 4 }}
    {{- end }}
  transformer:
    {{- include "infill.scaling" (dict "component" $values.transformer) | nindent 4 }}
    {{- if eq $values.autoscaling.kind "hpa" }}
    scaleMetric: cpu
    scaleTarget: {{ $values.autoscaling.target }}
    {{- else if eq $values.autoscaling.kind "keda" }}
    # KServe creates a ScaledObject for each component, and KEDA refuses one without a trigger.
    autoScaling:
      metrics:
        - type: Resource
          resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}
    {{- end }}
    labels:
      app.kubernetes.io/instance: {{ $release }}
      infill.dev/component: transformer
    serviceAccountName: {{ $release }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    terminationGracePeriodSeconds: 90
    {{- include "infill.pullSecrets" .root | nindent 4 }}
    securityContext: {{- include "infill.podSecurity" . | nindent 6 }}
    containers:
      - name: kserve-container
        image: {{ required "images.transformer: name the image with its digest" $values.images.transformer }}
        command: [python, -m, serving.transformer]
        args:
          {{- include "infill.modelArgs" . | nindent 10 }}
          - --model_name={{ $values.model.name }}
          - --upstream_name={{ $values.model.name }}
          - {{ printf "--predictor_host=%s-predictor.%s:%v" .name $namespace $values.kserve.port | quote }}
          - --enable_grpc=false
          {{- with $values.transformer.access }}
          {{- if .keysSecret }}
          - --keys=/keys/keys.json
          {{- end }}
          {{- with .oidc }}
          {{- if .issuer }}
          - {{ printf "--oidc_issuer=%s" .issuer | quote }}
          - {{ required "transformer.access.oidc.audience: say for whom the issuer's tokens are made" .audience | printf "--oidc_audience=%s" | quote }}
          - {{ printf "--oidc_tenant=%s" .tenantClaim | quote }}
          {{- end }}
          {{- end }}
          {{- if .requestsPerMinute }}
          - --tenant_requests={{ int64 .requestsPerMinute }}
          {{- end }}
          {{- if .tokensPerDay }}
          - --tenant_tokens={{ int64 .tokensPerDay }}
          {{- end }}
          {{- end }}
          {{- with $values.transformer.telemetry }}
          {{- if ne .mode "off" }}
          - --telemetry={{ .mode }}
          {{- end }}
          {{- if eq .mode "feedback" }}
          - {{ required "transformer.telemetry.feedback: name the folder of the feedback dataset" .feedback | printf "--feedback=%s" | quote }}
          {{- end }}
          {{- end }}
          {{- with $values.transformer.canary }}
          {{- if .predictor }}
          - {{ printf "--candidate_predictor=%s" .predictor | quote }}
          {{- if .model }}
          - {{ printf "--candidate_model=%s" .model | quote }}
          {{- end }}
          - --canary_weight={{ .weight }}
          - --shadow_requests={{ int64 .shadowRequests }}
          {{- include "infill.canaryRules" . | nindent 10 }}
          {{- else if or .weight .shadowRequests }}
          {{- fail "transformer.canary.predictor: name the predictor that runs the candidate" }}
          {{- end }}
          {{- end }}
          - --workspace_bytes={{ int64 $values.transformer.workspaceBytes }}
          {{- with $values.transformer.args }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        {{- include "infill.environment" .root | nindent 8 }}
        ports:
          - {name: http1, containerPort: 8080, protocol: TCP}
        {{- include "infill.lifecycle" (dict "path" "/v2/health/ready" "live" "/v2/health/live" "seconds" $values.transformer.startSeconds) | nindent 8 }}
        resources: {{- toYaml $values.transformer.resources | nindent 10 }}
        securityContext: {{- include "infill.containerSecurity" . | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: cache, mountPath: /cache}
          {{- if $values.transformer.access.keysSecret }}
          - {name: keys, mountPath: /keys, readOnly: true}
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 256Mi}
      - name: cache
        emptyDir: {sizeLimit: 512Mi}
      {{- with $values.transformer.access.keysSecret }}
      - name: keys
        secret: {secretName: {{ . }}}
      {{- end }}
{{- end }}

{{- define "infill.canaryRules" -}}
- --canary_requests={{ int64 .requests }}
- --canary_window_s={{ .windowSeconds }}
- --canary_errors={{ .errors }}
- --canary_latency={{ .latency }}
- --canary_acceptance={{ .acceptance }}
{{- end }}

{{- define "infill.modelArgs" -}}
- {{ printf "--model=%s" .uri | quote }}
{{- with .deployment }}
- {{ printf "--deployment=%s" . | quote }}
{{- end }}
{{- end }}

{{/* Container and volumes of a predictor. Takes root, engine, and further arguments. */}}
{{- define "infill.predictorPod" -}}
{{- $values := .root.Values }}
{{- $engine := index $values.predictor .engine }}
containers:
  - name: kserve-container
    {{- if eq .engine "vllm" }}
    image: {{ required "images.vllm: name the image with its digest" $values.images.vllm }}
    command: [vllm, serve]
    args:
      - /mnt/models
      - --served-model-name={{ $values.model.name }}
      - --port=8080
      - --max-model-len={{ $engine.contextLength | int }}
      - --enable-prefix-caching
      - --enable-prompt-tokens-details
    {{- else }}
    image: {{ required "images.predictor: name the image with its digest" $values.images.predictor }}
    command: [python, -m, serving.predictor]
    args:
      - --name={{ $values.model.name }}
      - --host=0.0.0.0
      - --port=8080
    {{- end }}
      {{- with .arguments }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- include "infill.environment" .root | nindent 4 }}
    ports:
      - {name: http1, containerPort: 8080, protocol: TCP}
    {{- $health := eq .engine "vllm" | ternary "/health" "/v2/health/ready" }}
    {{- include "infill.lifecycle" (dict "path" $health "live" "/health" "seconds" $engine.loadSeconds) | nindent 4 }}
    resources: {{- toYaml $engine.resources | nindent 6 }}
    securityContext: {{- include "infill.containerSecurity" .root | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: cache, mountPath: /cache}
      - {name: shm, mountPath: /dev/shm}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
  - name: cache
    emptyDir: {sizeLimit: {{ $engine.cache }}}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ $engine.sharedMemory }}}
{{- end }}
