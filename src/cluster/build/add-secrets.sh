# Puts the keys of mounted Secrets below the operator's own configuration.
set -eu
refuse() {
  echo "spec.flinkConfigurationFrom: the key $1 of Secret $2 $3; remove it from the Secret" >&2
  exit 1
}
is_owned() {
  set -f
  for pattern in $FLINKHA_OWNED_KEYS; do
    case $1 in $pattern) set +f; return 0 ;; esac
  done
  set +f
  return 1
}
return=$(printf '\r')
# Prints a line for each key: its value is a YAML string in double quotes.
lines() {
  for file in "$FLINKHA_SECRETS"/*/*; do
    [ -f "$file" ] || continue
    key=${file##*/} secret=${file%/*}
    secret=${secret##*/}
    secret=${secret#*.}
    case $key in [!a-zA-Z]*) refuse "$key" "$secret" "is no key of Flink's configuration" ;; esac
    ! is_owned "$key" || refuse "$key" "$secret" "is owned by the operator"
    value=$(cat "$file") || exit 1
    printf '%s: "' "$key"
    printf '%s\n' "$value" | sed "s/\\\\/\\\\\\\\/g; s/\"/\\\\\"/g; s/$return/\\\\r/g" | awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
    printf '"\n'
  done
}
secrets=$FLINK_CONF_DIR/.secrets.yaml
if (umask 077; lines > "$secrets.new"); then
  mv "$secrets.new" "$secrets"
else
  # A pod whose Secret has been changed to something wrong runs on.
  [ -f "$secrets" ] || exit 1
  echo "this container starts with what it had before" >&2
fi

# Of two lines with one key the operator's own counts, or else the last one.
ours=$FLINK_CONF_DIR/.ours
rm -rf "$ours"
mkdir "$ours"
cp "$FLINKHA_CONFIGURATION"/* "$ours"
awk -F: 'NR == FNR { ours[$1]; next } !($1 in ours) { line[$1] = $0 } END { for (key in line) print line[key] }' \
  "$FLINKHA_CONFIGURATION"/config.yaml "$secrets" >> "$ours"/config.yaml
FLINKHA_CONFIGURATION=$ours

