#!/bin/sh
# Makes a user, a team and an incoming webhook in a new Mattermost, and writes the
# webhook's address to WEBHOOK_FILE. Run again it finds them, and makes a webhook
# only where the file is missing.
set -eu

if [ -s "$WEBHOOK_FILE" ]; then
    echo 'the webhook is there already'
    exit 0
fi

api=$MATTERMOST_URL/api/v4
token=

# call METHOD PATH [BODY]: prints the answer, a JSON object.
call() {
    curl --silent --show-error --fail-with-body --max-time 30 --request "$1" \
        --header "Authorization: Bearer $token" --header 'Content-Type: application/json' \
        ${3:+--data "$3"} "$api$2"
}

# The id in an answer. An object of Mattermost begins with its own.
id() { sed -n 's/^{"id":"\([a-z0-9]*\)".*/\1/p'; }

die() {
    echo "$1; the answer is above" >&2
    exit 1
}

# The first user of a server is its administrator.
call POST /users "{\"email\":\"bellhop@example.com\",\"username\":\"bellhop\",\"password\":\"$MATTERMOST_PASSWORD\"}" >/dev/null ||
    echo 'there is a user already; trying to log in as bellhop'
token=$(curl --silent --show-error --fail --max-time 30 --dump-header - --output /dev/null \
    --data "{\"login_id\":\"bellhop\",\"password\":\"$MATTERMOST_PASSWORD\"}" "$api/users/login" |
    tr -d '\r' | sed -n 's/^[Tt]oken: //p')
[ -n "$token" ] || die 'bellhop cannot log in'

call POST /teams '{"name":"bellhop","display_name":"Bellhop","type":"O"}' >/dev/null ||
    echo 'there is a team bellhop already'
channel=$(call GET /teams/name/bellhop/channels/name/town-square | id)
[ -n "$channel" ] || die 'there is no channel Town Square'
hook=$(call POST /hooks/incoming "{\"channel_id\":\"$channel\",\"display_name\":\"Bellhop\"}" | id)
[ -n "$hook" ] || die 'the webhook was not made'

printf '%s/hooks/%s' "$MATTERMOST_URL" "$hook" >"$WEBHOOK_FILE.new"
# Whoever has the address can post; the notifier runs as this user.
chown 10001:10001 "$WEBHOOK_FILE.new"
chmod 400 "$WEBHOOK_FILE.new"
mv "$WEBHOOK_FILE.new" "$WEBHOOK_FILE"
echo 'the webhook is made'
