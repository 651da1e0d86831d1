#!/bin/bash
# Ends with 0 when the Mattermost of this container answers. The image is not
# promised to have an HTTP client.
set -eu
exec 3<>/dev/tcp/127.0.0.1/8065
printf 'GET /api/v4/system/ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r _ code _ <&3
[ "$code" = 200 ]
