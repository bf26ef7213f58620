{{/* What a role's objects are called: those that answer bear the name of the release. */}}
{{- define "gpt4rec.name" -}}
{{- if eq .role "encode" }}{{ .root.Release.Name }}-encode{{ else }}{{ .root.Release.Name }}{{ end -}}
{{- end }}

{{- define "gpt4rec.labels" -}}
app.kubernetes.io/name: {{ if eq .role "encode" }}gpt4rec-encode{{ else }}gpt4rec{{ end }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}
