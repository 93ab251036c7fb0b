/work/main/prun -q -j2 many > /dev/null &
pid=$!
perf record -g -o /tmp/perf2.data -p $pid --no-inherit 2>/dev/null >/dev/null &
wait $pid
