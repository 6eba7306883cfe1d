# Sourced by the scripts here: what they need comes through apt, without questions, and only if it is missing.

# missing COMMAND_OR_PATH PACKAGE...: notes the packages unless the command, or the file of that absolute path, is there.
packages=()
missing() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac || packages+=("${@:2}")
}

# Installs what was noted. Another script may be at it: wait for its lock.
install_missing() {
    [ ${#packages[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "please install: ${packages[*]}" >&2
        return 1
    fi
    echo "installing ${packages[*]}" >&2
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" update </dev/null >/dev/null &&
        "${apt[@]}" install -y --no-install-recommends "${packages[@]}" </dev/null >/dev/null &&
        packages=()
}
