#!/bin/sh
# A job in shell: counts the lines of the Rust files below a folder.
# Arguments on stdin: {"path": "/some/folder"}
set -eu
path=$(sed -n 's/.*"path"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p')
if [ ! -d "$path" ]; then
    echo "there is no folder \"$path\"; give one as {\"path\": \"/some/folder\"}" >&2
    exit 2
fi
total=$(find "$path" -name '*.rs' -type f | wc -l)
find "$path" -name '*.rs' -type f | awk -v total="$total" '
    {
        while ((getline line < $0) > 0) lines++
        close($0)
        files++
        if (files % 25 == 0 || files == total) {
            printf "{\"progress\":{\"done\":%d,\"total\":%d,\"unit\":\"files\"}}\n", files, total
            fflush()
        }
    }
    END { printf "{\"files\":%d,\"lines\":%d}\n", files, lines }'
