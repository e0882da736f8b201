# Starts one server and outlives whoever asked for it just long enough to clean up.
# $1: the folder to remove at the end, or nothing; the rest: the server's command line.
# Standard input is a pipe held by the asking process: a line is a command, the end of the file
# means that this process is gone, however it went.
folder=$1
shift
server=

while read -r command; do
    case $command in
        start)
            "$@" </dev/null >&2 &
            server=$!
            # From here on the server alone holds the pipe: its end is the server's end.
            exec 2>/dev/null
            echo "$server"
            ;;
        status)
            wait "$server"
            echo $?
            server=
            ;;
        release)
            exit 0
            ;;
        *)
            kill -s "$command" "$server"
            echo done
            ;;
    esac
done

if [ -n "$server" ]; then
    # Nothing in a folder that goes is worth a clean shutdown.
    if [ -n "$folder" ]; then kill -s KILL "$server"; fi
    kill -s TERM "$server"
    kill -s CONT "$server"
    tries=0
    while [ "$tries" -lt 100 ] && kill -0 "$server"; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL "$server"
    wait "$server"
fi
if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
