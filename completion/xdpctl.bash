# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Completion of xdpctl for bash 4.4 or newer, as share/bash-completion/completions/xdpctl.
# Only the key asks xdpctl. Nothing is started when a shell starts.

_xdpctl() {
    local -a words=()
    local type value help i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        value=${COMP_WORDS[i]}
        # bash makes a word of the "=" in --netns=blue; to xdpctl it is two words without it.
        if ((i)) && [[ $value == = && ${COMP_WORDS[i - 1]} == --* ]]; then
            ((i == COMP_CWORD)) || continue
            value=
        fi
        words+=("$value")
    done
    COMPREPLY=()
    # shellcheck disable=SC2034 # bash has no place for the help
    while IFS=$'\t' read -r type value help; do
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
        COMP_WORDS=${words[*]} _XDPCTL_COMPLETE=lines_complete "$1" 2>/dev/null
    )
}

complete -o nosort -F _xdpctl xdpctl
