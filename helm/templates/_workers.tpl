{{- /*
Every lane of every stage that runs, as a list of: key, name, stage, lane, component labels, args, w (defaults with the lane's values over
them), needs, kafka (`scrimp.kafkaOf`), consumers (full names), scaled (by KEDA or HPA), window, drain, grace, env. What contradicts ends the rendering here.
*/ -}}
{{- define "scrimp.workers" -}}
{{- include "scrimp.check" . -}}
{{- $fleet := .Files.Get "files/fleet.yaml" | fromYaml -}}
{{- /* The Jobs and the test take the defaults as they are. */ -}}
{{- include "scrimp.checkEnv" (dict "root" . "fleet" $fleet "key" "defaults" "w" .Values.defaults "set" dict) -}}
{{- $mode := .Values.autoscaling.mode -}}
{{- $workers := list -}}
{{- range $stage, $facts := $fleet.stages -}}
{{- range $lane, $read := $facts.lanes -}}
{{- $w := mustMergeOverwrite (deepCopy $.Values.defaults) (deepCopy (index $.Values.stages $stage $lane)) -}}
{{- if $w.enabled -}}
{{- $prefix := printf "SCRIMP_%s__" (upper $stage) -}}
{{- $consumers := list -}}
{{- range $read -}}
{{- $consumers = append $consumers (dict "group" (printf "%s%s" $.Values.kafka.groupPrefix .group) "topic" (printf "%s%s" $.Values.kafka.topicPrefix .topic)) -}}
{{- end -}}
{{- $drain := $w.drainSeconds | default $facts.drain | float64 -}}
{{- $env := dict -}}
{{- if $w.window -}}{{- $_ := set $env (printf "%sWINDOW" $prefix) ($w.window | int | toString) -}}{{- end -}}
{{- if $w.drainSeconds -}}{{- $_ := set $env (printf "%sDRAIN_S" $prefix) ($w.drainSeconds | toString) -}}{{- end -}}
{{- $worker := dict
  "key" (printf "stages.%s.%s" $stage $lane)
  "name" (printf "%s-%s%s" (include "scrimp.fullname" $) $stage (eq $lane "bulk" | ternary "-bulk" ""))
  "stage" $stage
  "lane" $lane
  "args" (eq $lane "both" | ternary (list "run" $stage) (list "run" $stage "--lane" $lane))
  "w" $w
  "needs" (concat (list "kafka" "policy" "http") $facts.needs)
  "kafka" (include "scrimp.kafkaOf" (dict "root" $ "user" $w.kafkaUser "key" (printf "stages.%s.%s.kafkaUser" $stage $lane)) | fromYaml)
  "consumers" $consumers
  "scaled" (and $facts.scales (ne $mode "none"))
  "window" ($w.window | default $facts.window | int)
  "drain" $drain
  "grace" ($w.terminationGracePeriodSeconds | default (add (ceil $drain) 20) | int)
  "env" $env -}}
{{- include "scrimp.checkWorker" (dict "root" $ "fleet" $fleet "worker" $worker) -}}
{{- $workers = append $workers $worker -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $workers -}}
{{- end -}}

{{- define "scrimp.workerLabels" -}}
app.kubernetes.io/component: {{ .stage }}
lane: {{ .lane }}
{{- end -}}
