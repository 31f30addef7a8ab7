# Sourced by deploy/demo and deploy/test: the virtual environment in .venv and what is in it.
# Idempotent: what is there already is not installed again, so that a second call takes no time.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer is needed, with venv (on Debian and Ubuntu: apt-get install python3-venv)."
    return 1
}

# ensure_venv EXTRA…: .venv holds this checkout and these extras, at the versions of deploy/constraints.txt.
ensure_venv() {
    local extras stamp wanted python
    extras=$(IFS=,; printf '%s' "$*")
    stamp=.venv/.installed-$(printf '%s' "$extras" | tr ',' '-')
    wanted=$(cat setup.cfg deploy/constraints.txt | cksum)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        say "Making the virtual environment .venv with $($python --version)."
        "$python" -m venv .venv
    fi
    say "Installing this checkout with [$extras] and the versions of deploy/constraints.txt."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint deploy/constraints.txt --editable ".[$extras]"
    printf '%s' "$wanted" >"$stamp"
}

SERVERS="orthanc orthanc-dicomweb dcmtk dicom3tools dcm2niix libgdcm-tools redis-server"

server_is_there() {
    case $1 in
    orthanc) [ -x /usr/sbin/Orthanc ] || command -v Orthanc ;;
    orthanc-dicomweb) [ -f /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] ;;
    dcmtk) command -v dcmdump ;; # pynetdicom brings programs named storescp and storescu
    dicom3tools) command -v dciodvfy ;;
    libgdcm-tools) command -v gdcmconv ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

# ensure_servers: the real servers that tests/pacs runs against, from Debian's packages where that is permitted.
ensure_servers() {
    local name missing="" log
    for name in $SERVERS; do
        server_is_there "$name" || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Installing Debian's packages:$missing"
        log=$(mktemp)
        # No service is started: the tests start their own, on ports of their own.
        if ! {
            apt-get update -qq &&
                RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
        } >"$log" 2>&1; then
            tail -n 5 "$log" >&2
        fi
        rm -f "$log"
    fi
    for name in $SERVERS; do
        server_is_there "$name" || say "MISSING: $name. Its tests are skipped (under CI=true they fail)."
    done
}
