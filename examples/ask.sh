#!/bin/sh
# Ask the fleet one question from a shell, and print the response as JSON. With kcat (https://github.com/edenhill/kcat) when it is
# installed; without it the scrimp command does the same.
#
# Usage: examples/ask.sh "What is a message broker?"
set -eu

question=${1:-What is a message broker?}
broker=${BOOTSTRAP:-localhost:9092}

# An older kcat (librdkafka 2.0) cannot speak to the embedded broker of `scrimp up`; to Apache Kafka any can.
if ! kcat -L -b "$broker" -m 5 >/dev/null 2>&1; then
  echo "kcat is not here, or cannot speak to $broker: using scrimp" >&2
  exec env SCRIMP_KAFKA__BOOTSTRAP_SERVERS="$broker" "${SCRIMP:-$(dirname "$0")/../.venv/bin/scrimp}" ask "$question" --tenant acme --json
fi

id=sh-$(date +%s)-$$
key=acme/$id
text=$(printf '%s' "$question" | sed 's/\\/\\\\/g; s/"/\\"/g')

printf '%s\t{"request_id": "%s", "tenant": "acme", "feature": "support-bot", "messages": [{"role": "user", "content": "%s"}]}\n' \
  "$key" "$id" "$text" | kcat -P -b "$broker" -t llm.requests -K '	'

# The whole topic, once a second, for at most a minute: the answer may be there before we look.
for _ in $(seq 60); do
  answer=$(kcat -C -b "$broker" -t llm.responses -o beginning -e -q -f '%k\t%s\n' | sed -n "s|^$key	||p")
  if [ -n "$answer" ]; then
    printf '%s\n' "$answer"
    exit 0
  fi
  sleep 1
done
echo "no answer within a minute: is the fleet running?" >&2
exit 1
