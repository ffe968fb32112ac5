{{- define "flinkha.fullname" -}}
{{ .Values.fullnameOverride | default (printf "%s-%s" .Release.Name (.Values.nameOverride | default "operator")) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "flinkha.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "flinkha.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The namespaces that the operator watches, as a JSON array; an empty one: all. */}}
{{- define "flinkha.namespaces" -}}
{{- if and .Values.watchNamespaces .Values.watchNamespace -}}
{{- fail "watchNamespaces and watchNamespace are both set: watchNamespace is the former name for one namespace, so put that into watchNamespaces" -}}
{{- end -}}
{{- .Values.watchNamespaces | default (compact (list .Values.watchNamespace)) | uniq | toJson -}}
{{- end }}

{{- define "flinkha.image" -}}
{{ with .Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ .Values.image.repository -}}
{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The names of a list of Secrets, with commas between them. */}}
{{- define "flinkha.pullSecretNames" -}}
{{- $names := list -}}
{{- range . }}{{ $names = append $names .name }}{{ end -}}
{{- join "," $names -}}
{{- end }}

{{- define "flinkha.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "flinkha-operator" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flinkha.labels" -}}
{{ include "flinkha.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels and annotations of an object. */}}
{{- define "flinkha.metadata" -}}
labels: {{- include "flinkha.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A hook before an upgrade; the argument is its order. A failed one stays until the next upgrade, with its log. */}}
{{- define "flinkha.crdHook" -}}
helm.sh/hook: pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Labels of pods that are not the operator's: of a context and a component. */}}
{{- define "flinkha.helperLabels" -}}
{{- with index . 0 -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default "flinkha-operator" }}
app.kubernetes.io/component: {{ index $ 1 }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What those pods have in common with the operator's. */}}
{{- define "flinkha.helperPod" -}}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
volumes: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "flinkha.helperContainer" -}}
image: {{ include "flinkha.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
resources: {{- toYaml .Values.resources | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- with .Values.extraVolumeMounts }}
volumeMounts: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
