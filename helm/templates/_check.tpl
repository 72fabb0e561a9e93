{{- /* What the schema cannot say: values that contradict one another. Every message begins with the key. */ -}}

{{- define "scrimp.check" -}}
{{- $v := .Values -}}
{{- $sasl := hasPrefix "SASL_" $v.kafka.securityProtocol -}}
{{- if and $sasl (not $v.kafka.sasl.mechanism) -}}
{{- fail (printf "kafka.sasl.mechanism: kafka.securityProtocol %s needs one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512" $v.kafka.securityProtocol) -}}
{{- end -}}
{{- if and $v.kafka.sasl.mechanism (not $sasl) -}}
{{- fail (printf "kafka.sasl.mechanism: with kafka.securityProtocol %s nobody signs in; use SASL_SSL, or leave the mechanism empty" $v.kafka.securityProtocol) -}}
{{- end -}}
{{- range list "username" "existingSecret" -}}
{{- if and (get $v.kafka.sasl .) (not $sasl) -}}
{{- fail (printf "kafka.sasl.%s: with kafka.securityProtocol %s nobody signs in; use SASL_SSL, or leave it empty" . $v.kafka.securityProtocol) -}}
{{- end -}}
{{- end -}}
{{- range list "caKey" "certKey" -}}
{{- if and (get $v.kafka.tls .) (not (hasSuffix "SSL" $v.kafka.securityProtocol)) -}}
{{- fail (printf "kafka.tls.%s: kafka.securityProtocol %s has no TLS; use SSL or SASL_SSL" . $v.kafka.securityProtocol) -}}
{{- end -}}
{{- end -}}
{{- if ne (empty $v.kafka.tls.certKey) (empty $v.kafka.tls.keyKey) -}}
{{- fail "kafka.tls.certKey and kafka.tls.keyKey: the client's certificate and its key go together" -}}
{{- end -}}
{{- if and $v.kafka.tls.caSecret (not $v.kafka.tls.caKey) -}}
{{- fail (printf "kafka.tls.caKey: is empty, so the CA in %s (kafka.tls.caSecret) would not be used" $v.kafka.tls.caSecret) -}}
{{- end -}}
{{- $users := list $v.kafka.tls $v.defaults.kafkaUser $v.topics.kafkaUser $v.test.kafkaUser -}}
{{- range $v.stages }}{{ range . }}{{ $users = append $users (.kafkaUser | default dict) }}{{ end }}{{ end -}}
{{- $certificates := list -}}
{{- range $users }}{{ $certificates = append $certificates .certKey }}{{ end -}}
{{- if and $v.kafka.tls.clientSecret (not (compact $certificates)) -}}
{{- fail (printf "kafka.tls.certKey: is empty, so the client's certificate in %s (kafka.tls.clientSecret) would not be used" $v.kafka.tls.clientSecret) -}}
{{- end -}}
{{- if and $v.qdrant.existingSecret (not $v.qdrant.apiKeyKey) -}}
{{- fail (printf "qdrant.apiKeyKey: is empty, so the API key in %s (qdrant.existingSecret) would not be used" $v.qdrant.existingSecret) -}}
{{- end -}}
{{- range $where := list "providerKeys" "signingKeys" -}}
{{- range $name := (get $v $where).names -}}
{{- if or (hasPrefix "SCRIMP_" (upper $name)) (eq $name "HOME") -}}
{{- fail (printf "%s.names: %s is no key of the policy's; it has a value of its own" $where $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $v.signingKeys.names -}}
{{- if has . $v.providerKeys.names -}}
{{- fail (printf "signingKeys.names: %s is among providerKeys.names, too" .) -}}
{{- end -}}
{{- end -}}
{{- if eq $v.autoscaling.mode "keda" -}}
{{- range list "bootstrapServers" "consumerGroup" "topic" "lagThreshold" "offsetResetPolicy" "tls" "sasl" -}}
{{- if hasKey $v.autoscaling.keda.metadata . -}}
{{- fail (printf "autoscaling.keda.metadata.%s: the chart sets it, for each lane its own" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.policy.inline $v.policy.existingConfigMap -}}
{{- fail "policy.inline and policy.existingConfigMap: give one of them" -}}
{{- end -}}
{{- if and $v.encoder.volume (not $v.encoder.path) -}}
{{- fail "encoder.path: encoder.volume needs the directory where it is mounted" -}}
{{- end -}}
{{- if and $v.encoder.volume (has (clean $v.encoder.path) (list "/" "/tmp" "/etc/scrimp/policy" "/etc/scrimp/kafka")) -}}
{{- fail (printf "encoder.path: %s holds something else; mount encoder.volume beside it" $v.encoder.path) -}}
{{- end -}}
{{- range splitList "," $v.kafka.bootstrapServers -}}
{{- include "scrimp.checkPort" (dict "key" "kafka.bootstrapServers" "address" (trim .)) -}}
{{- end -}}
{{- include "scrimp.checkPort" (dict "key" "qdrant.url" "address" $v.qdrant.url) -}}
{{- include "scrimp.checkPolicy" . -}}
{{- end -}}

{{- /* `address`: its port is what follows the last colon, unless that is within an address of IPv6 or before the host. `key`: its own. */ -}}
{{- define "scrimp.checkPort" -}}
{{- with regexFind ":[^]:@/]+/?$" .address -}}
{{- $port := trimAll ":/" . | atoi -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- fail (printf "%s: the port of %s must be between 1 and 65535" $.key $.address) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The rest of the policy is checked by the workers, which know it: here only that its keys' variables are there. */ -}}
{{- define "scrimp.checkPolicy" -}}
{{- $v := .Values -}}
{{- if $v.policy.inline -}}
{{- $policy := $v.policy.inline | fromYaml -}}
{{- if hasKey $policy "Error" -}}
{{- fail (printf "policy.inline: not YAML: %s" $policy.Error) -}}
{{- end -}}
{{- range list "models" "tiers" "tenants" -}}
{{- if and (hasKey $policy .) (not (kindIs "map" (get $policy .))) -}}
{{- fail (printf "policy.inline: %s must be a map" .) -}}
{{- end -}}
{{- end -}}
{{- range list "models" "tiers" "reference" -}}
{{- if not (hasKey $policy .) -}}
{{- fail (printf "policy.inline: %s is missing" .) -}}
{{- end -}}
{{- end -}}
{{- range list (list "models" "api_key_env" "providerKeys" "call") (list "tenants" "hmac_env" "signingKeys" "classify") -}}
{{- $part := index . 0 -}}{{- $field := index . 1 -}}{{- $where := index . 2 -}}{{- $stage := index . 3 -}}
{{- $lanes := list -}}
{{- range get $v.stages $stage -}}
{{- $w := mustMergeOverwrite (deepCopy $v.defaults) (deepCopy .) -}}
{{- if $w.enabled -}}{{- $lanes = append $lanes $w -}}{{- end -}}
{{- end -}}
{{- range $name, $entry := get $policy $part | default dict -}}
{{- if kindIs "map" $entry -}}
{{- with get $entry $field -}}
{{- $key := . -}}
{{- range $lanes | default (list $v.defaults) -}}
{{- $names := get (get $v $where) "names" -}}
{{- range .extraEnv -}}{{- $names = append $names .name -}}{{- end -}}
{{- if not (has $key $names) -}}
{{- fail (printf "%s.names: %v is missing, which policy.inline names at %s.%v.%s; or give it in extraEnv of each lane of %s" $where $key $part $name $field $stage) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- else if eq $part "models" -}}
{{- fail (printf "policy.inline: models.%v must be a map" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* `root`, `fleet`: the map, `worker`: one entry of `scrimp.workers`. */ -}}
{{- define "scrimp.checkWorker" -}}
{{- $v := .root.Values -}}
{{- $key := .worker.key -}}
{{- $w := .worker.w -}}
{{- $partitions := $v.kafka.partitions | int -}}
{{- $mode := $v.autoscaling.mode -}}
{{- if .worker.scaled -}}
{{- if gt (int $w.maxReplicas) $partitions -}}
{{- fail (printf "%s.maxReplicas: %d is more than the %d partitions of %s (kafka.partitions); pods above them would idle" $key (int $w.maxReplicas) $partitions (first .worker.consumers).topic) -}}
{{- end -}}
{{- if gt (int $w.minReplicas) (int $w.maxReplicas) -}}
{{- fail (printf "%s.minReplicas: %d is more than maxReplicas, %d" $key (int $w.minReplicas) (int $w.maxReplicas)) -}}
{{- end -}}
{{- if and (eq (int $w.minReplicas) 0) (or (ne $mode "keda") (ne .worker.lane "bulk")) -}}
{{- fail (printf "%s.minReplicas: 0 is for the bulk lane, with autoscaling.mode keda" $key) -}}
{{- end -}}
{{- /* `call` has twice its window under way: what asks the ledger ahead, and what is being settled (workers/call/slots.py). */ -}}
{{- $underWay := mul .worker.window (ternary 2 1 (eq .worker.stage "call")) -}}
{{- if and (eq $mode "keda") (le (int $w.lagThreshold) (int $underWay)) -}}
{{- fail (printf "%s.lagThreshold: must be above %d: what is being worked on counts as lag, and pods would be added for ever" $key $underWay) -}}
{{- end -}}
{{- if and (eq $mode "hpa") (not (dig "resources" "requests" "cpu" "" $w)) -}}
{{- fail (printf "%s.resources.requests.cpu: autoscaling.mode hpa is a share of it" $key) -}}
{{- end -}}
{{- else if gt (int $w.replicas) $partitions -}}
{{- fail (printf "%s.replicas: %d is more than the %d partitions of %s (kafka.partitions); pods above them would idle" $key (int $w.replicas) $partitions (first .worker.consumers).topic) -}}
{{- end -}}
{{- if le (float64 .worker.grace) .worker.drain -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %d must be above the drain, %v s (drainSeconds), or running work is killed" $key .worker.grace .worker.drain) -}}
{{- end -}}
{{- range list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "lane" -}}
{{- if hasKey $w.podLabels . -}}
{{- fail (printf "%s.podLabels.%s: the chart sets it, and finds its pods by such labels" $key .) -}}
{{- end -}}
{{- end -}}
{{- $parts := dict "root" .root "needs" .worker.needs "hook" false "kafka" .worker.kafka -}}
{{- $names := list -}}
{{- range include "scrimp.volumes" $parts | fromYamlArray }}{{ $names = append $names .name }}{{ end -}}
{{- range $w.extraVolumes -}}
{{- if has .name $names -}}
{{- fail (printf "%s.extraVolumes: there is a volume called %s already" $key .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $paths := list "/" -}}
{{- range include "scrimp.mounts" $parts | fromYamlArray }}{{ $paths = append $paths (clean .mountPath) }}{{ end -}}
{{- range $w.extraVolumeMounts -}}
{{- if has (clean .mountPath) $paths -}}
{{- fail (printf "%s.extraVolumeMounts: something is mounted at %s already" $key .mountPath) -}}
{{- end -}}
{{- $paths = append $paths (clean .mountPath) -}}
{{- end -}}
{{- /* What the chart sets for the stage itself is compared with the rest, too. */ -}}
{{- $drain := printf "SCRIMP_%s__DRAIN_S" (upper .worker.stage) -}}
{{- include "scrimp.checkEnv" (merge (dict "key" $key "w" $w "set" (dict $drain .worker.drain)) .) -}}
{{- end -}}

{{- /*
The variables that are given to a pod. `root`, `fleet`, and `worker`, where the pod is one; `w`: what has `env` and `extraEnv`, and `key`: where
that stands in the values; `set`: what is set beside them, by the variable.
*/ -}}
{{- define "scrimp.checkEnv" -}}
{{- $v := .root.Values -}}
{{- $key := .key -}}
{{- $owned := include "scrimp.owned" . | fromYaml -}}
{{- /* All that is given, by name and value. Where a name stands twice, Kubernetes would take one of them without a word. */ -}}
{{- $given := list -}}
{{- range $name, $value := .w.env -}}{{- $given = append $given (list (printf "env.%s" $name) $name $value) -}}{{- end -}}
{{- range .w.extraEnv -}}{{- $given = append $given (list "extraEnv" .name (.value | default "")) -}}{{- end -}}
{{- $values := deepCopy .set -}}
{{- $places := dict -}}
{{- range $name, $_ := .set -}}{{- $_ := set $places $name (get $owned $name) -}}{{- end -}}
{{- range $given -}}
{{- $where := printf "%s.%s" $key (index . 0) -}}
{{- $name := index . 1 -}}
{{- $ours := hasPrefix "SCRIMP_" (upper $name) -}}
{{- with get $owned (upper $name) -}}
{{- fail (printf "%s: the chart sets %s: use %s" $where $name .) -}}
{{- end -}}
{{- if and $ours (not (has (upper $name) $.fleet.settings)) -}}
{{- fail (printf "%s: %s is not a setting of scrimp" $where $name) -}}
{{- end -}}
{{- if has $name (concat $v.providerKeys.names $v.signingKeys.names) -}}
{{- fail (printf "%s: %s is a secret, and comes from one (providerKeys, signingKeys)" $where $name) -}}
{{- end -}}
{{- $name = $ours | ternary (upper $name) $name -}}
{{- if hasKey $values $name -}}
{{- fail (printf "%s: %s is given twice" $where $name) -}}
{{- end -}}
{{- /* As the workers read a number: `45_000` is one. */ -}}
{{- $_ := set $values $name (index . 2 | nospace | replace "_" "") -}}
{{- $_ := set $places $name $where -}}
{{- end -}}
{{- /* Every process reads all settings, and does not start where two of them contradict: also with what only another stage uses. */ -}}
{{- range .fleet.order -}}
{{- $above := get $values .above | default .aboveDefault | float64 -}}
{{- $below := get $values .below | default .belowDefault | float64 -}}
{{- $least := mulf $below .times -}}
{{- if or (lt $above $least) (and (eq $above $least) (not .mayEqual)) -}}
{{- $where := get $places .above | default (get $places .below) -}}
{{- fail (printf "%s: %s, %v, must be %s %v, as %s is %v%s" $where .above $above (ternary "at least" "above" .mayEqual) $least .below $below .why) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The variables that the chart sets, and the value that each is set by. `worker`: one entry of `scrimp.workers`, if the pod is one. */ -}}
{{- define "scrimp.owned" -}}
HOME: tmpSize; it is /tmp, the only place that can be written
SCRIMP_LOG_LEVEL: logLevel
SCRIMP_KAFKA__BOOTSTRAP_SERVERS: kafka.bootstrapServers
SCRIMP_KAFKA__SECURITY_PROTOCOL: kafka.securityProtocol
SCRIMP_KAFKA__SASL_MECHANISM: kafka.sasl.mechanism
SCRIMP_KAFKA__SASL_USERNAME: kafka.sasl.username
SCRIMP_KAFKA__SASL_PASSWORD: kafka.sasl.existingSecret
SCRIMP_KAFKA__SSL_CA_FILE: kafka.tls.caKey
SCRIMP_KAFKA__SSL_CERT_FILE: kafka.tls.certKey
SCRIMP_KAFKA__SSL_KEY_FILE: kafka.tls.keyKey
SCRIMP_KAFKA__TOPIC_PREFIX: kafka.topicPrefix
SCRIMP_KAFKA__GROUP_PREFIX: kafka.groupPrefix
SCRIMP_KAFKA__PARTITIONS: kafka.partitions
SCRIMP_KAFKA__REPLICATION_FACTOR: kafka.replicationFactor
SCRIMP_POLICY_FILE: policy.inline
SCRIMP_HTTP__HOST: http.host
SCRIMP_HTTP__PORT: http.port
SCRIMP_QDRANT__URL: qdrant.url
SCRIMP_QDRANT__COLLECTION: qdrant.collection
SCRIMP_QDRANT__API_KEY: qdrant.apiKeyKey
SCRIMP_ENCODER__PATH: encoder.path
SCRIMP_LEDGER__URL: ledger.urlKey
SCRIMP_LEDGER__POOL_SIZE: ledger.poolSize
{{- with .worker }}
SCRIMP_{{ upper .stage }}__WINDOW: {{ .key }}.window
SCRIMP_{{ upper .stage }}__DRAIN_S: {{ .key }}.drainSeconds
{{- end }}
{{- end -}}
