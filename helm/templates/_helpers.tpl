{{- /* Names, labels, and what all pods have in common. */ -}}

{{- define "scrimp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 39 characters: the longest name made of it, that of KEDA's HPA for `attribute` in the bulk lane, must stay within 63. */ -}}
{{- define "scrimp.fullname" -}}
{{- $name := include "scrimp.name" . -}}
{{- $whole := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $whole .Values.fullnameOverride | trunc 39 | trimSuffix "-" -}}
{{- end -}}

{{- define "scrimp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "scrimp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scrimp.labels" -}}
{{ include "scrimp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "scrimp.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What makes an object a hook before install and upgrade. The argument is its weight. */ -}}
{{- define "scrimp.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- /* The ConfigMap with the policy; empty: the policy that ships. `root`; `hook`: for a pod that runs before the release's own ConfigMap. */ -}}
{{- define "scrimp.policyMap" -}}
{{- if .root.Values.policy.existingConfigMap -}}
{{ .root.Values.policy.existingConfigMap }}
{{- else if .root.Values.policy.inline -}}
{{ include "scrimp.fullname" .root }}-policy{{ .hook | ternary "-hook" "" }}
{{- end -}}
{{- end -}}

{{- define "scrimp.policyKey" -}}
{{ empty .Values.policy.existingConfigMap | ternary "policy.yaml" .Values.policy.key }}
{{- end -}}

{{- /* The fields of every pod's spec but its containers and volumes. `root`, and `w`: a lane's values, or the defaults. */ -}}
{{- define "scrimp.pod" -}}
{{- with .root.Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
automountServiceAccountToken: false
{{- /* A Service called scrimp-anything would set SCRIMP_* variables, and the workers refuse what they do not know. */}}
enableServiceLinks: false
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .w.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .w.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .w.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .w.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* The fields of every container but its name, its arguments and its environment. */ -}}
{{- define "scrimp.container" -}}
image: {{ include "scrimp.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [scrimp]
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{- /* One variable from a Secret. `root`, `name`, `secret` (empty: existingSecret), `key`. */ -}}
{{- define "scrimp.secretEnv" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ default .root.Values.existingSecret .secret }}, key: {{ .key }}}}
{{- end -}}

{{- /*
`sasl` and `tls` of Kafka as one pod has them: the values of all, with those of its own user over them. `root`, `user`, and `key`: where that
user stands in the values. What contradicts ends the rendering here.
*/ -}}
{{- define "scrimp.kafkaOf" -}}
{{- $user := .user -}}
{{- $key := .key -}}
{{- $kafka := deepCopy (pick .root.Values.kafka "securityProtocol" "sasl" "tls") -}}
{{- if $user -}}
{{- $sasl := $kafka.sasl -}}
{{- range list "username" "usernameKey" "passwordKey" -}}
{{- if hasKey $user . -}}
{{- if not $sasl.mechanism -}}
{{- fail (printf "%s.%s: kafka.sasl.mechanism is empty, so nobody signs in with a name" $key .) -}}
{{- end -}}
{{- $_ := set $sasl . (get $user .) -}}
{{- end -}}
{{- end -}}
{{- range list "certKey" "keyKey" -}}
{{- if hasKey $user . -}}
{{- if not (hasSuffix "SSL" $kafka.securityProtocol) -}}
{{- fail (printf "%s.%s: kafka.securityProtocol %s has no TLS; use SSL or SASL_SSL" $key . $kafka.securityProtocol) -}}
{{- end -}}
{{- $_ := set $kafka.tls . (get $user .) -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $kafka.tls.certKey) (empty $kafka.tls.keyKey) -}}
{{- fail (printf "%s.certKey and %s.keyKey: the client's certificate and its key go together" $key $key) -}}
{{- end -}}
{{- if and (hasKey $user "username") (hasKey $user "usernameKey") -}}
{{- fail (printf "%s.username and %s.usernameKey: give one of them" $key $key) -}}
{{- end -}}
{{- if not (or $sasl.mechanism $kafka.tls.certKey) -}}
{{- fail (printf "%s: kafka has neither users nor client certificates (kafka.sasl.mechanism, kafka.tls.certKey)" $key) -}}
{{- end -}}
{{- if hasKey $user "usernameKey" -}}
{{- $_ := set $sasl "username" "" -}}
{{- else if and $sasl.mechanism $sasl.username (not (hasKey $user "username")) -}}
{{- fail (printf "%s.username: is missing, and kafka.sasl.username, %s, is another user; or give usernameKey" $key $sasl.username) -}}
{{- end -}}
{{- with $user.existingSecret -}}
{{- $_ := set $sasl "existingSecret" . -}}
{{- $_ := set $kafka.tls "clientSecret" . -}}
{{- end -}}
{{- end -}}
{{- toYaml $kafka -}}
{{- end -}}

{{- /*
The environment of a pod. `root`; `needs`: a list of kafka, topics, policy, http, qdrant, ledger, providers, signing, encoder; `hook`;
`kafka`: how it gets into Kafka, from `scrimp.kafkaOf`.
Every name that is set here stands in `scrimp.owned`, so that no `env` can set it a second time.
*/ -}}
{{- define "scrimp.env" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
- {name: SCRIMP_LOG_LEVEL, value: {{ $v.logLevel }}}
{{- /* The root is read-only: what a library writes beside itself goes to /tmp. */}}
- {name: HOME, value: /tmp}
{{- if has "kafka" .needs }}
- {name: SCRIMP_KAFKA__BOOTSTRAP_SERVERS, value: {{ $v.kafka.bootstrapServers | nospace | quote }}}
- {name: SCRIMP_KAFKA__SECURITY_PROTOCOL, value: {{ $v.kafka.securityProtocol }}}
- {name: SCRIMP_KAFKA__TOPIC_PREFIX, value: {{ $v.kafka.topicPrefix | quote }}}
- {name: SCRIMP_KAFKA__GROUP_PREFIX, value: {{ $v.kafka.groupPrefix | quote }}}
{{- with .kafka.sasl }}
{{- if .mechanism }}
- {name: SCRIMP_KAFKA__SASL_MECHANISM, value: {{ .mechanism }}}
{{- if .username }}
- {name: SCRIMP_KAFKA__SASL_USERNAME, value: {{ .username | quote }}}
{{- else }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" "SCRIMP_KAFKA__SASL_USERNAME" "secret" .existingSecret "key" .usernameKey) }}
{{- end }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" "SCRIMP_KAFKA__SASL_PASSWORD" "secret" .existingSecret "key" .passwordKey) }}
{{- end }}
{{- end }}
{{- with .kafka.tls }}
{{- if .caKey }}
- {name: SCRIMP_KAFKA__SSL_CA_FILE, value: /etc/scrimp/kafka/ca.crt}
{{- end }}
{{- if .certKey }}
- {name: SCRIMP_KAFKA__SSL_CERT_FILE, value: /etc/scrimp/kafka/client.crt}
- {name: SCRIMP_KAFKA__SSL_KEY_FILE, value: /etc/scrimp/kafka/client.key}
{{- end }}
{{- end }}
{{- end }}
{{- if has "topics" .needs }}
- {name: SCRIMP_KAFKA__PARTITIONS, value: {{ $v.kafka.partitions | int | quote }}}
- {name: SCRIMP_KAFKA__REPLICATION_FACTOR, value: {{ $v.kafka.replicationFactor | int | quote }}}
{{- end }}
{{- if and (has "policy" .needs) (include "scrimp.policyMap" .) }}
- {name: SCRIMP_POLICY_FILE, value: {{ printf "/etc/scrimp/policy/%s" (include "scrimp.policyKey" $root) }}}
{{- end }}
{{- if has "http" .needs }}
- {name: SCRIMP_HTTP__HOST, value: {{ $v.http.host | quote }}}
- {name: SCRIMP_HTTP__PORT, value: {{ $v.http.port | int | quote }}}
{{- end }}
{{- if has "qdrant" .needs }}
- {name: SCRIMP_QDRANT__URL, value: {{ $v.qdrant.url | quote }}}
- {name: SCRIMP_QDRANT__COLLECTION, value: {{ $v.qdrant.collection | quote }}}
{{- with $v.qdrant.apiKeyKey }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" "SCRIMP_QDRANT__API_KEY" "secret" $v.qdrant.existingSecret "key" .) }}
{{- end }}
{{- end }}
{{- if has "encoder" .needs }}
{{- with $v.encoder.path }}
- {name: SCRIMP_ENCODER__PATH, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if has "ledger" .needs }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" "SCRIMP_LEDGER__URL" "secret" $v.ledger.existingSecret "key" $v.ledger.urlKey) }}
- {name: SCRIMP_LEDGER__POOL_SIZE, value: {{ $v.ledger.poolSize | int | quote }}}
{{- end }}
{{- if has "providers" .needs }}
{{- range $v.providerKeys.names }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" . "secret" $v.providerKeys.existingSecret "key" .) }}
{{- end }}
{{- end }}
{{- if has "signing" .needs }}
{{- range $v.signingKeys.names }}
{{ include "scrimp.secretEnv" (dict "root" $root "name" . "secret" $v.signingKeys.existingSecret "key" .) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where a pod's volumes are mounted. The same arguments as `scrimp.env`. */ -}}
{{- define "scrimp.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if and (has "policy" .needs) (include "scrimp.policyMap" .) }}
{{- /* The directory, never a subPath: a file that is mounted by itself is not changed when the ConfigMap is. */}}
- {name: policy, mountPath: /etc/scrimp/policy, readOnly: true}
{{- end }}
{{- with .kafka.tls }}
{{- if and (has "kafka" $.needs) (or .caKey .certKey) }}
- {name: kafka-tls, mountPath: /etc/scrimp/kafka, readOnly: true}
{{- end }}
{{- end }}
{{- if and (has "encoder" .needs) .root.Values.encoder.volume }}
- {name: encoder, mountPath: {{ .root.Values.encoder.path | quote }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "scrimp.volumes" -}}
{{- $root := .root -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .root.Values.tmpSize }}}}
{{- if has "policy" .needs }}
{{- with include "scrimp.policyMap" . }}
- {name: policy, configMap: {name: {{ . }}}}
{{- end }}
{{- end }}
{{- with .kafka.tls }}
{{- if and (has "kafka" $.needs) (or .caKey .certKey) }}
- name: kafka-tls
  projected:
    defaultMode: 0440
    sources:
      {{- if .caKey }}
      - secret: {name: {{ default $root.Values.existingSecret .caSecret }}, items: [{key: {{ .caKey }}, path: ca.crt}]}
      {{- end }}
      {{- if .certKey }}
      - secret:
          name: {{ default $root.Values.existingSecret .clientSecret }}
          items: [{key: {{ .certKey }}, path: client.crt}, {key: {{ .keyKey }}, path: client.key}]
      {{- end }}
{{- end }}
{{- end }}
{{- if and (has "encoder" .needs) .root.Values.encoder.volume }}
- {{ merge (dict "name" "encoder") .root.Values.encoder.volume | toJson }}
{{- end }}
{{- end -}}
