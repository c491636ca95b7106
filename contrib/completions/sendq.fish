# fish completion of sendq(1)
set -l commands list show why flush hold release remove resend settle undo edit links watch sent forget doctor oauth setup
function __sendq_ids
	sendq list --json 2>/dev/null | string replace -rf '^\{"id":"([0-9a-z]+)".*' '$1'
end
complete -c sendq -f
complete -c sendq -s C -l config -r -F -d configuration
complete -c sendq -l json -d 'one JSON object a line'
complete -c sendq -n "not __fish_seen_subcommand_from $commands" -a "$commands"
complete -c sendq -n '__fish_seen_subcommand_from list' -l all -d 'finished ones too'
complete -c sendq -n '__fish_seen_subcommand_from show why flush hold release remove resend settle undo edit forget' -a '(__sendq_ids)'
complete -c sendq -n '__fish_seen_subcommand_from settle' -l from-mail -d 'a delivery report on stdin says it'
complete -c sendq -n '__fish_seen_subcommand_from forget' -l before -x -d 'how long ago'
complete -c sendq -n '__fish_seen_subcommand_from forget' -l all -d everything
complete -c sendq -n '__fish_seen_subcommand_from doctor' -l report -d 'for strangers: without names'
complete -c sendq -n '__fish_seen_subcommand_from setup' -l name -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l server -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l imap -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l user -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l autoconfig -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l ca-file -r -F
complete -c sendq -n '__fish_seen_subcommand_from setup' -l password-command -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l password-file -r -F
complete -c sendq -n '__fish_seen_subcommand_from setup' -l password-stdin
complete -c sendq -n '__fish_seen_subcommand_from setup' -l store -r -f -a 'file keyring config credential'
complete -c sendq -n '__fish_seen_subcommand_from setup' -l oauth-client-id -r -f
complete -c sendq -n '__fish_seen_subcommand_from setup' -l device
complete -c sendq -n '__fish_seen_subcommand_from setup' -l browser
complete -c sendq -n '__fish_seen_subcommand_from setup' -l test
complete -c sendq -n '__fish_seen_subcommand_from setup' -l no-test
complete -c sendq -n '__fish_seen_subcommand_from setup' -l service
complete -c sendq -n '__fish_seen_subcommand_from setup' -l no-service
complete -c sendq -n '__fish_seen_subcommand_from setup' -l print
complete -c sendq -n '__fish_seen_subcommand_from setup' -l yes
complete -c sendq -n '__fish_seen_subcommand_from oauth' -l device -d 'a code for any device'
complete -c sendq -n '__fish_seen_subcommand_from oauth' -l browser -d 'in a browser of this machine'
complete -c sendq -n '__fish_seen_subcommand_from oauth' -l forget -d 'remove the refresh token'
complete -c sendq -n '__fish_seen_subcommand_from settle' -a 'sent unsent'
complete -c sendq -n '__fish_seen_subcommand_from hold release remove resend settle sent forget' -l to -x -d recipient
complete -c sendq -n '__fish_seen_subcommand_from sent forget' -l message-id -x -d Message-ID
complete -c sendq -n '__fish_seen_subcommand_from edit' -l at -x -d 'when it goes'
complete -c sendq -n '__fish_seen_subcommand_from edit' -l deadline -x -d 'until when it may'
complete -c sendq -n '__fish_seen_subcommand_from edit' -l to -x -d 'new recipient'
complete -c sendq -n '__fish_seen_subcommand_from edit' -l instead-of -x -d 'whom it replaces'
complete -c sendq -n '__fish_seen_subcommand_from sent' -l since -x -d 'how long ago'
