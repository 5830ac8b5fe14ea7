#!/bin/sh
# The first process of a guest: loads the modules, then runs the scripts that come in on the control port.
#
# A request is one line, `ID SCRIPT`, the script in base64. Scripts run side by side; each is answered, when its shell has ended,
# by a line `ID STATUS BYTES BYTES` and those bytes of its standard output and standard error. What it left running goes on.
/bin/busybox --install -s /bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/net /dev/shm /run/lab /run/netns /run/wireguard
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
while read -r module; do
    insmod "/modules/$module" || { echo "cannot load $module"; poweroff -f; }
done < /modules/order
ip link set lo up
# The only port there is, whatever its number.
until [ -c /dev/vport*p1 ]; do usleep 10000; done
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
poweroff -f
