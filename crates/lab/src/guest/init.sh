#!/bin/sh
# The first process of a guest: loads the modules, then runs the scripts that come in on the control port.
/bin/busybox --install -s /bin
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/net /dev/shm /run/netns /run/wireguard
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
while read -r module; do
    insmod "/modules/$module" || { echo "cannot load $module"; poweroff -f; }
done < /modules/order
ip link set lo up
. /serve
poweroff -f
