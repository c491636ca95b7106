# shellcheck shell=bash disable=SC2034
# Read by contrib/check and contrib/try: the Debian 12 packages they need, and how to get those that are missing.

packages_build="gcc libc6-dev meson ninja-build pkg-config binutils scdoc sqlite3 python3 openssl
	libcurl4-openssl-dev libssl-dev libconfig-dev libsqlite3-dev libmd-dev libidn2-dev libsmartcols-dev
	libexpat1-dev libjansson-dev libsystemd-dev libgmime-3.0-dev check"
# The libraries are those of exim4-daemon-light, which is unpacked and not installed: it would put Postfix out.
packages_servers="libgnutls-dane0 libidn12 libnsl2 libdb5.3 postfix dovecot-core dovecot-submissiond dovecot-imapd dovecot-sieve
	procmail maildrop notmuch"
# Clients that the gateway is tried with.
packages_servers="$packages_servers swaks msmtp curl"
# Programs that call sendmail, for the end-to-end tests; the heavy ones with --long.
packages_callers="swaks mutt s-nail bsd-mailx git-email libmailtools-perl"
# The terminal in which `sendq watch` is looked at.
packages_callers="$packages_callers tmux"
# Whose verifier reads the units.
packages_callers="$packages_callers systemd"
# A system bus with stand-ins for NetworkManager and login1.
packages_callers="$packages_callers dbus python3-dbusmock"
packages_fuzz="clang libclang-rt-14-dev"
packages_long="valgrind php-cli neomutt aerc tmux emacs-nox zsh fish"
# The Debian packages are made and tried in a root of their own.
packages_long="$packages_long mmdebstrap systemd-container lintian"

# Print those of the arguments that are not installed.
packages_missing()
{
	local p
	for p in "$@"; do
		case "$(dpkg-query -W -f='${Status}' "$p" 2>/dev/null)" in
		"install ok installed") ;;
		*) echo "$p" ;;
		esac
	done
}

# Install what is missing of the arguments; never removes a package, never starts a service of its own accord.
packages_install()
{
	local missing no_start=
	missing=$(packages_missing "$@")
	[ -z "$missing" ] && return 0
	# One line of names.
	missing=${missing//$'\n'/ }
	if [ "$(id -u)" != 0 ]; then
		echo "These packages are missing; as root: apt-get install $missing" >&2
		return 1
	fi
	echo "installing: $missing"
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
		no_start=1
	fi
	export DEBIAN_FRONTEND=noninteractive
	echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections 2>/dev/null
	# shellcheck disable=SC2086
	apt-get -qq update </dev/null >/dev/null &&
		apt-get -qq -y --no-install-recommends --no-remove -o Dpkg::Use-Pty=0 install $missing </dev/null >/dev/null
	local status=$?
	[ -n "$no_start" ] && rm -f /usr/sbin/policy-rc.d
	if [ $status != 0 ]; then
		echo "apt-get could not install: $missing" >&2
		echo "(another mail server may be in the way of postfix: nothing was removed)" >&2
	fi
	return $status
}
