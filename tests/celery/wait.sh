# Says that it waits, and waits until the file exists that its arguments name.
read -r args
file=${args#*'"file":"'}
file=${file%%'"'*}
printf '{"progress": {"done": 1, "total": 2, "message": "waiting"}}\n'
while [ ! -e "$file" ]; do sleep 0.05; done
echo '"went on"'
