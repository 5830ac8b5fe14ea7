#!/bin/sh
# Runs the scripts that come in on the control port of a guest.
#
# A request is one line, `ID SCRIPT`, the script in base64. Scripts run side by side; each is answered, when its shell has ended,
# by a line `ID STATUS BYTES BYTES` and those bytes of its standard output and standard error. What it left running goes on.
mkdir -p /run/lab
# The only port there is, whatever its number.
until [ -c /dev/vport*p1 ]; do sleep 0.01; done
exec 3<>"$(echo /dev/vport*p1)"
mkfifo /run/lab/finished
# One process writes the answers, so that none cuts into another. What a script left running may still write: no more than was
# announced is sent.
while read -r id status; do
    at=/run/lab/$id
    out=$(stat -c %s "$at.out") err=$(stat -c %s "$at.err")
    echo "$id $status $out $err"
    head -c "$out" "$at.out"
    head -c "$err" "$at.err"
    rm "$at" "$at.out" "$at.err"
done <>/run/lab/finished >&3 3>&- &
echo "ready $(uname -r)" >&3
# Not in this process, which has to stay free to wait for whatever ends and has no parent any more.
while read -r id script <&3; do
    {
        at=/run/lab/$id
        echo "$script" | base64 -d > "$at"
        /bin/sh "$at" > "$at.out" 2> "$at.err" < /dev/null
        echo "$id $?" > /run/lab/finished
    } 3>&- &
done &
wait
