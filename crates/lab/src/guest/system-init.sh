#!/lab/busybox sh
# The first process of a guest with systemd: loads the modules, then becomes it.
PATH=/lab:/usr/sbin:/usr/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do
    busybox insmod "/lab/modules/$module" || { echo "cannot load $module"; busybox poweroff -f; }
done < /lab/modules/order
exec /lib/systemd/systemd
