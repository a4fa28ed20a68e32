#!/bin/busybox sh
# The guest's first process: modules, the host's root below a tmpfs, one command, power off.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /host /share /layer /root-of-guest
mount -t tmpfs shm /dev/shm
echo 1 > /proc/sys/kernel/printk

fail() {
    echo "guest: $1" > /share/failed 2>/dev/null
    echo "guest: $1"
    echo o > /proc/sysrq-trigger
    sleep 60
}

for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe "$module" || fail "module $module does not load"
done
options=trans=virtio,version=9p2000.L,msize=1048576
mount -t 9p -o "$options,cache=none" share /share || fail "the share cannot be mounted"
mount -t 9p -o "$options,cache=loose,ro" host /host || fail "the host's root cannot be mounted"
modprobe vivid $(cat /share/vivid) || fail "vivid does not load"

mount -t tmpfs layer /layer
mkdir -p /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /root-of-guest \
    || fail "the overlay cannot be mounted"
for part in proc sys dev; do
    mount --move "/$part" "/root-of-guest/$part"
done
mkdir -p /root-of-guest/run/guest-share
mount --move /share /root-of-guest/run/guest-share
ip link set lo up

chroot /root-of-guest /bin/sh /run/guest-share/command.sh </root-of-guest/dev/null
echo $? > /root-of-guest/run/guest-share/status
sync
echo o > /root-of-guest/proc/sysrq-trigger
sleep 60
