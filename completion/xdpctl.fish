# SPDX-License-Identifier: GPL-2.0-only
# Completion of xdpctl for fish 3.4 or newer, as share/fish/vendor_completions.d/xdpctl.fish.
# Only the key asks xdpctl. Nothing is started when a shell starts.

function __xdpctl_complete
    set -l tokens (commandline -opc)
    set -l current (commandline -ct)
    set -lx COMP_WORDS (string escape -- $tokens | string collect)\n"$current"
    set -lx _XDPCTL_COMPLETE lines_complete
    for line in ($tokens[1] 2>/dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case dir
                __fish_complete_directories "$current"
            case file
                __fish_complete_path "$current"
            case plain
                if test -n "$parts[3]"
                    printf '%s\t%s\n' $parts[2..3]
                else
                    echo $parts[2]
                end
        end
    end
end

complete -c xdpctl -f -a '(__xdpctl_complete)'
