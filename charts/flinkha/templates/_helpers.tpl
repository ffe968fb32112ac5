{{- define "flinkha.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "flinkha.selector" -}}
app.kubernetes.io/name: flinkha-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flinkha.labels" -}}
{{ include "flinkha.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
