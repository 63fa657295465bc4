#!/bin/sh
# Starts the Collector. A damaged queue file makes it exit at every start, or once it reads the damaged part. The
# queue's files are then moved to the folder `damaged` beside them, so that the next start, by the restart policy,
# has an empty queue. The alert TelemetryLost reports it; docs/runbook.md says what to do with the files.
queue=${QUEUE_DIRECTORY:-/var/lib/otelcol}
box=${BUSYBOX-/busybox} # the image has no other program
log=$queue/log # not in /tmp: after a restart, some versions of runc let only root write there

$box rm -f "$log"
$box mkfifo "$log"
# Passes the log on, and exits with 3 after a panic in the queue's database, or if the database could not be
# opened. The first goroutine that Go lists is the one that panicked.
$box awk '{ print; fflush() }
    /^goroutine / { listed++ }
    listed == 1 && /^go\.etcd\.io\/bbolt[.\/]/ { found = 3 }
    /^Error: .*(invalid database|checksum error|version mismatch|file size too small)/ { found = 3 }
    END { exit found }' < "$log" >&2 &
reader=$!
QUEUE_FILES_ASIDE=$($box find "$queue/damaged" -type f 2> /dev/null | $box wc -l)
export QUEUE_FILES_ASIDE
"${COLLECTOR:-/otelcol-contrib}" "$@" > "$log" 2>&1 &
collector=$!
trap 'kill -TERM $collector' TERM INT
trap 'kill -HUP $collector' HUP # it reads its configuration again
wait $collector
status=$?
while kill -0 $collector 2> /dev/null; do # a signal ended the wait
    wait $collector
    status=$?
done
wait $reader
damaged=$?
if [ $status -ne 0 ] && [ $damaged -eq 3 ]; then
    aside=$queue/damaged/$($box date -u +%Y%m%dT%H%M%SZ)
    $box mkdir -p "$aside"
    $box find "$queue" -maxdepth 1 -type f -exec "$box" mv {} "$aside" \;
    echo "The queue is damaged. Its files are in $aside now, and the next start has an empty queue." >&2
fi
exit $status
