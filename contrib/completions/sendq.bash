# bash completion of sendq(1)
_sendq()
{
	local cur=${COMP_WORDS[COMP_CWORD]} word command=
	local commands="list show why flush hold release remove resend settle undo edit links watch sent forget doctor oauth setup"
	COMPREPLY=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case " $commands " in *" $word "*) command=$word ;; esac
	done
	case "$command:$cur" in
	:-*) COMPREPLY=($(compgen -W "--config --json --version --help -C" -- "$cur")) ;;
	:*) COMPREPLY=($(compgen -W "$commands" -- "$cur")) ;;
	list:-*) COMPREPLY=($(compgen -W "--all --json" -- "$cur")) ;;
	edit:-*) COMPREPLY=($(compgen -W "--at --deadline --to --instead-of --json" -- "$cur")) ;;
	sent:*) COMPREPLY=($(compgen -W "--to --message-id --since --json" -- "$cur")) ;;
	forget:-*) COMPREPLY=($(compgen -W "--to --message-id --before --all --json" -- "$cur")) ;;
	setup:-*) COMPREPLY=($(compgen -W "--name --server --imap --user --autoconfig --ca-file --password-command --password-file --password-stdin --store --oauth-client-id --device --browser --test --no-test --service --no-service --print --yes --json" -- "$cur")) ;;
	setup:*) ;;
	oauth:-*) COMPREPLY=($(compgen -W "--device --browser --forget --json" -- "$cur")) ;;
	doctor:-*) COMPREPLY=($(compgen -W "--report --json" -- "$cur")) ;;
	settle:-*) COMPREPLY=($(compgen -W "--to --from-mail --json" -- "$cur")) ;;
	show:-* | why:-* | flush:-* | undo:-* | links:-* | watch:-*) COMPREPLY=($(compgen -W "--json" -- "$cur")) ;;
	*:-*) COMPREPLY=($(compgen -W "--to --json" -- "$cur")) ;;
	links:* | watch:* | doctor:* | oauth:*) ;;
	*)
		COMPREPLY=($(compgen -W "$(sendq list --json 2>/dev/null | sed -n 's/^{"id":"\([0-9a-z]*\)".*/\1/p')" -- "$cur"))
		[ "$command" = settle ] && COMPREPLY+=($(compgen -W "sent unsent" -- "$cur"))
		;;
	esac
}
complete -F _sendq sendq
