# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Completion of xdpctl for bash 4.4 or newer, as share/bash-completion/completions/xdpctl.
# Only the key asks xdpctl. Nothing is started when a shell starts.

_xdpctl() {
    local -a words=()
    local type value count=0 i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        value=${COMP_WORDS[i]}
        # bash makes a word of the "=" in --netns=blue; to xdpctl it is two words without it.
        if ((i)) && [[ $value == = && ${COMP_WORDS[i - 1]} == --* ]]; then
            ((i == COMP_CWORD)) || continue
            value=
        fi
        words[count]=$value
        count=$((count + 1))
    done
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value != *[^[:alnum:]_.,:/=@%+-]* ]] || printf -v value %q "$value"
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(
        IFS=$'\n'
        COMP_WORDS=${words[*]} COMP_CWORD=$((count - 1)) _XDPCTL_COMPLETE=bash_complete \
            "$1" 2>/dev/null
    )
}

complete -o nosort -F _xdpctl xdpctl
