{{- define "kap.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "kap.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "kap.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kap.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kap.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kap.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kap.labels" -}}
{{ include "kap.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "kap.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kap.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kap.certificateSecret" -}}
{{- if eq .Values.certificate.mode "secret" -}}
{{- required "certificate.secret is required if certificate.mode is secret" .Values.certificate.secret -}}
{{- else -}}
{{- printf "%s-tls" (include "kap.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Names that the serving certificate must be valid for, as a YAML list. */}}
{{- define "kap.dnsNames" -}}
{{- $name := include "kap.fullname" . -}}
- {{ $name }}
- {{ printf "%s.%s" $name .Release.Namespace }}
- {{ printf "%s.%s.svc" $name .Release.Namespace }}
- {{ printf "%s.%s.svc.cluster.local" $name .Release.Namespace }}
{{- range .Values.certificate.dnsNames }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "kap.kind" -}}
{{- if eq .Values.storage.type "persistentVolumeClaim" }}StatefulSet{{ else }}Deployment{{ end -}}
{{- end -}}

{{/* Whether a sink has a spool: streams always have one. */}}
{{- define "kap.hasSpool" -}}
{{- if or .spool (has .type (list "s3" "kafka" "otlp")) }}true{{ end -}}
{{- end -}}

{{/* Whether a sink needs the volume. */}}
{{- define "kap.hasStorage" -}}
{{- range .Values.sinks }}{{ if or (eq .type "file") (include "kap.hasSpool" .) }}true{{ end }}{{ end -}}
{{- end -}}

{{/* Whether the proxy uses the token of its ServiceAccount. */}}
{{- define "kap.usesToken" -}}
{{- if ne .Values.upstream.identity "request-header" }}true{{ end -}}
{{- end -}}

{{- define "kap.validate" -}}
{{- $a := .Values.authentication -}}
{{- if not (or $a.anonymous $a.clientCertificates.configMap $a.oidc.issuerURL $a.configuration $a.serviceAccountKeys $a.tokenReview) -}}
{{- fail "authentication: enable at least one method, such as tokenReview" -}}
{{- end -}}
{{- if and $a.oidc.issuerURL $a.configuration -}}
{{- fail "authentication: oidc and configuration exclude each other" -}}
{{- end -}}
{{- if and $a.oidc.issuerURL (not $a.oidc.clientID) -}}
{{- fail "authentication.oidc.clientID is required" -}}
{{- end -}}
{{- if and (eq .Values.upstream.identity "request-header") (not .Values.upstream.clientCertificateSecret) -}}
{{- fail "upstream.clientCertificateSecret is required if upstream.identity is request-header" -}}
{{- end -}}
{{- if and .Values.upstream.originalUserExtra (ne .Values.upstream.identity "impersonate") -}}
{{- fail "upstream.originalUserExtra needs upstream.identity impersonate" -}}
{{- end -}}
{{- $names := dict -}}
{{- range $index, $sink := .Values.sinks -}}
{{- if hasKey $names $sink.name -}}
{{- fail (printf "sinks[%d].name: %q occurs twice" $index $sink.name) -}}
{{- end -}}
{{- $_ := set $names $sink.name true -}}
{{- if not (hasKey $.Values.policies $sink.policy) -}}
{{- fail (printf "sinks[%d].policy: there is no policy %q in policies" $index $sink.policy) -}}
{{- end -}}
{{- if and (eq $sink.type "webhook") (not $sink.configSecret) -}}
{{- fail (printf "sinks[%d].configSecret is required for type webhook" $index) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The file of --config. */}}
{{- define "kap.config" -}}
{{- $etc := "/etc/kube-audit-proxy" -}}
{{- $a := .Values.authentication -}}
{{- $config := dict
  "bind-address" "0.0.0.0"
  "secure-port" 6443
  "admin-bind-address" "0.0.0.0:8081"
  "tls-cert-file" (printf "%s/tls/tls.crt" $etc)
  "tls-private-key-file" (printf "%s/tls/tls.key" $etc)
  "upstream-identity" .Values.upstream.identity -}}
{{- if not $a.configuration -}}
{{- $_ := set $config "anonymous-auth" $a.anonymous -}}
{{- else -}}
{{- $_ := set $config "authentication-config" (printf "%s/config/authentication.yaml" $etc) -}}
{{- end -}}
{{- if $a.clientCertificates.configMap -}}
{{- $_ := set $config "client-ca-file" (printf "%s/client-ca/ca.crt" $etc) -}}
{{- if $a.clientCertificates.crl -}}
{{- $_ := set $config "client-crl-file" (printf "%s/client-ca/ca.crl" $etc) -}}
{{- end -}}
{{- end -}}
{{- with $a.oidc -}}
{{- if .issuerURL -}}
{{- $_ := set $config "oidc-issuer-url" .issuerURL -}}
{{- $_ := set $config "oidc-client-id" .clientID -}}
{{- $_ := set $config "oidc-username-claim" .usernameClaim -}}
{{- if .usernamePrefix }}{{ $_ := set $config "oidc-username-prefix" .usernamePrefix }}{{ end -}}
{{- if .groupsClaim }}{{ $_ := set $config "oidc-groups-claim" .groupsClaim }}{{ end -}}
{{- if .groupsPrefix }}{{ $_ := set $config "oidc-groups-prefix" .groupsPrefix }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $a.serviceAccountKeys }}{{ $_ := set $config "service-account-keys-from-upstream" true }}{{ end -}}
{{- if $a.tokenReview }}{{ $_ := set $config "authentication-token-review" true }}{{ end -}}
{{- if eq .Values.upstream.identity "request-header" -}}
{{- $_ := set $config "upstream-server" (default "https://kubernetes.default.svc" .Values.upstream.server) -}}
{{- $_ := set $config "upstream-ca-file" (printf "%s/upstream-ca/ca.crt" $etc) -}}
{{- $_ := set $config "upstream-client-cert-file" (printf "%s/upstream-tls/tls.crt" $etc) -}}
{{- $_ := set $config "upstream-client-key-file" (printf "%s/upstream-tls/tls.key" $etc) -}}
{{- else if .Values.upstream.server -}}
{{- $serviceaccount := "/var/run/secrets/kubernetes.io/serviceaccount" -}}
{{- $_ := set $config "upstream-server" .Values.upstream.server -}}
{{- $_ := set $config "upstream-ca-file" (printf "%s/ca.crt" $serviceaccount) -}}
{{- $_ := set $config "upstream-token-file" (printf "%s/token" $serviceaccount) -}}
{{- end -}}
{{- with .Values.upstream.originalUserExtra }}{{ $_ := set $config "upstream-original-user-extra" . }}{{ end -}}
{{- $sinks := list -}}
{{- range .Values.sinks -}}
{{- $sink := dict "name" .name "type" .type "policy-file" (printf "%s/policy/%s.yaml" $etc .policy) -}}
{{- if eq .type "file" }}{{ $_ := set $sink "path" (printf "/var/lib/kube-audit-proxy/log/%s/audit.log" .name) }}{{ end -}}
{{- if eq .type "webhook" }}{{ $_ := set $sink "config-file" (printf "%s/sinks/%s/kubeconfig" $etc .name) }}{{ end -}}
{{- if include "kap.hasSpool" . }}{{ $_ := set $sink "spool-dir" (printf "/var/lib/kube-audit-proxy/spool/%s" .name) }}{{ end -}}
{{- $sinks = append $sinks (merge $sink (deepCopy (default dict .settings))) -}}
{{- end -}}
{{- $_ := set $config "sinks" $sinks -}}
{{- toYaml (merge $config (deepCopy .Values.settings)) -}}
{{- end -}}
