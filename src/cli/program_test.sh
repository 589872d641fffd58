#!/usr/bin/env bash
# The program as a user meets it, without a model: messages, exit codes, what goes to which stream.
# usage: program_test.sh PATH_OF_LOOPSERVE
set -euo pipefail
loopserve=$1
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
export LOOPSERVE_CACHE=$dir/cache HF_ENDPOINT=http://127.0.0.1:9
failures=0

# expect NAME CODE STDOUT_PATTERN STDERR_PATTERN ARGS...: runs loopserve ARGS; "" as a pattern: the stream is empty.
expect() {
  local name=$1 code=$2 out=$3 err=$4 got=0; shift 4
  "$loopserve" "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
  [ "$got" -eq "$code" ] || { echo "$name: exit code $got, expected $code"; cat "$dir/err"; failures=1; }
  local stream pattern
  for stream in out err; do
    pattern=$out; [ $stream = err ] && pattern=$err
    if [ -z "$pattern" ]; then
      [ ! -s "$dir/$stream" ] || { echo "$name: unexpected std$stream:"; cat "$dir/$stream"; failures=1; }
    elif ! grep -qE -- "$pattern" "$dir/$stream"; then
      echo "$name: std$stream lacks '$pattern':"; cat "$dir/$stream"; failures=1
    fi
  done
  if [ "$code" -ne 0 ] && [ "$(wc -l <"$dir/err")" -ne 1 ]; then echo "$name: stderr is not one line"; failures=1; fi
}

echo '{"turns":[{"user":"hello"}]}' >"$dir/d.jsonl"
echo 'not json' >"$dir/bad.jsonl"
printf '{"turns":[{"user":"caf\xe9"}]}\n' >"$dir/latin1.jsonl"
echo 'this is no model' >"$dir/text.gguf"; : >"$dir/empty.gguf"; : >"$dir/plain"

expect version 0 '^loopserve [0-9]+\.[0-9]+\.[0-9]+$' '' --version
expect help 0 'loopserve chat -m smollm2' '' --help
expect run-help 0 '--dialogue' '' run --help
expect pull-help 0 'smollm2' '' pull --help
expect nothing 2 '' '^loopserve: error: .*subcommand'
expect unknown-command 2 '' '^loopserve: error: ' frobnicate
expect unknown-option 2 '' '^loopserve: error: .*--frob' chat -m x --frob
expect bad-number 2 '' '^loopserve: error: .*--threads' chat -m x --threads many
expect bad-kv-type 2 '' '^loopserve: error: .*--kv-type' chat -m x --kv-type f64
expect bad-log-level 2 '' '^loopserve: error: .*--log-level' --log-level loud chat -m x
expect no-model 2 '' '^loopserve: error: .*--model' chat
expect bad-policy 2 '' '^loopserve: error: .*frob' chat -m x --policy frob
expect bad-temperature 2 '' '^loopserve: error: .*temperature' chat -m x --temperature -1
expect model-not-pulled 1 '' 'loopserve pull smollm2$' chat -m smollm2
expect model-unknown 1 '' 'known are smollm2' chat -m frob
expect model-missing 1 '' 'no such model file' chat -m "$dir/none.gguf"
expect model-folder 1 '' 'is a folder' chat -m "$dir"
expect model-text 1 '' 'text.gguf' chat -m "$dir/text.gguf"
expect model-empty 1 '' 'empty.gguf' chat -m "$dir/empty.gguf"
expect dialogue-missing 1 '' 'none.jsonl' run -m x --dialogue "$dir/none.jsonl"
expect dialogue-bad 1 '' 'bad.jsonl, line 1' run -m x --dialogue "$dir/bad.jsonl"
expect dialogue-latin1 1 '' 'latin1.jsonl, line 1: not valid UTF-8' run -m x --dialogue "$dir/latin1.jsonl"
expect json-folder 1 '' 'is a folder' run -m x --dialogue "$dir/d.jsonl" --json "$dir"
expect json-nowhere 1 '' 'none/o.json' run -m x --dialogue "$dir/d.jsonl" --json "$dir/none/o.json"
expect eval-help 0 '--dependencies' '' eval build --help
expect eval-alone 2 '' '^loopserve: error: .*--model' eval
expect eval-no-data 2 '' '^loopserve: error: .*--data' eval build -m x --out "$dir/o.jsonl"
expect eval-bad-dataset 2 '' 'there is no "frob"; known are narrativeqa' eval build -m x --data "$dir" --out - --datasets frob
expect eval-data-missing 1 '' 'none is no folder' eval build -m x --data "$dir/none" --out -
expect inspect-help 0 '--layer' '' inspect --help
expect inspect-no-text 2 '' '^loopserve: error: .*--text' inspect -m x
expect inspect-head-alone 2 '' '^loopserve: error: .*--layer' inspect -m x --text "$dir/d.jsonl" --head 1
expect inspect-png-alone 2 '' '^loopserve: error: .*--head' inspect -m x --text "$dir/d.jsonl" --png "$dir/o.png"
expect inspect-bad-alpha 2 '' '^loopserve: error: .*--alpha' inspect -m x --text "$dir/d.jsonl" --alpha 2
expect inspect-png-nowhere 1 '' 'none/o.png' inspect -m x --text "$dir/d.jsonl" --layer 0 --head 0 --png "$dir/none/o.png"
expect pull-unknown 1 '' 'known are smollm2' pull frob
expect pull-hostile 2 '' 'bad model reference' pull hf:a/../../x.gguf
expect pull-bad-url 2 '' 'bad URL' pull http://user:pw@h/x.gguf
expect pull-bad-sha 2 '' '64 hex digits' pull hf:a/b/c.gguf --sha256 12
LOOPSERVE_CACHE=$dir/plain/sub expect pull-unwritable 1 '' 'plain/sub' pull hf:a/b/c.gguf

# A reader that goes away is an error of ours, not a death by SIGPIPE; a full stdout is an error too.
code=0; "$loopserve" --help >/dev/full 2>"$dir/err" || code=$?
[ $code -lt 128 ] || { echo "full-stdout: killed by a signal ($code)"; failures=1; }
code=0; { "$loopserve" pull --help; echo $? >"$dir/code"; } 2>/dev/null | true || code=$?
[ "$(cat "$dir/code")" -lt 128 ] || { echo "closed-stdout: killed by a signal"; failures=1; }
exit $failures
