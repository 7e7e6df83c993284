# What the runbooks need, for bash:
#
#     STAGE=staging
#     . ops/shell.sh
#
# It asks for an admin's e-mail and password, and gives:
#
#     api METHOD PATH [JSON [OPTIONS OF CURL]]
#                              a call of the API as that admin: api GET operations/summary
#     field NAME ...           a part of the JSON on standard input: field settings 0 value
#     output NAME              an output of the stage's stack: output EdgeUrl
#     $EDGE                    the stage's address
#
# Neither password nor token is an argument of a command, which others on this machine could see. Whoever has logged in
# to the stage in this shell is not asked again. With STAGE=local nobody is: the demo data has an admin.

field() {
  .venv/bin/python -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1:]:
    value = value[int(name) if isinstance(value, list) else name]
print(value if isinstance(value, str) else json.dumps(value))' "$@"
}

if [ "$STAGE" = local ]; then
  STATE=${TIDEGATE_STATE:-.tidegate}
  output() { field Tidegate-local "$1" < "$STATE/outputs.json"; }
  credentials() { field users admin email < "$STATE/stack.json" && field users admin password < "$STATE/stack.json"; }
  EDGE=$(field edge_url < "$STATE/stack.json")
else
  output() {
    aws cloudformation describe-stacks --stack-name "Tidegate-$STAGE" --output text \
      --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
  }
  credentials() {
    local email password
    read -r -p "E-mail of an admin: " email && read -r -s -p "Password: " password && printf '%s\n' "$email" "$password"
  }
  EDGE=$(output EdgeUrl)
fi

if [ "${ADMIN_OF:-}" != "$STAGE" ]; then
  ADMIN=$(credentials | .venv/bin/python -c '
import json, sys
email, password = sys.stdin.read().splitlines()
print(json.dumps({"email": email, "password": password}))' |
    curl -sS --fail-with-body "$EDGE/api/auth/login" -H 'Content-Type: application/json' --data-binary @- | field token)
  ADMIN_OF=$STAGE
fi

api() {
  curl -sS --fail-with-body -X "$1" "$EDGE/api/$2" -H 'Content-Type: application/json' ${3:+--data-binary "$3"} \
    -H @<(printf 'Authorization: Bearer %s' "$ADMIN") "${@:4}"
}
