# Second and partial copies of one message, for Dovecot with Pigeonhole. Nothing is ever discarded:
#   a multipart message that lacks its closing boundary (the link broke, the server delivered what it had) goes to
#   `Partial` and its Message-ID is not remembered, so that the whole message still arrives in the inbox;
#   a whole copy of a message that came before goes to `Duplicates`.
# A cut in a message of a single part cannot be seen from its content: such a copy counts as whole, but for one
# without any body, which stays in the inbox and is not remembered.
#
# Install: copy to ~/sieve/sendq.sieve and put  include :personal "sendq";  first in your script (or make it your script,
# ~/.dovecot.sieve). Dovecot needs `mail_plugins = $mail_plugins sieve` for lda and lmtp.
require ["body", "duplicate", "fileinto", "mailbox", "variables"];

set "boundary" "";
if header :matches "Content-Type" "multipart/*boundary=\"*\"*" {
	set "boundary" "${2}";
} elsif header :matches "Content-Type" "multipart/*boundary=*;*" {
	set "boundary" "${2}";
} elsif header :matches "Content-Type" "multipart/*boundary=*" {
	set "boundary" "${2}";
}

# Only a whole copy may reach the test `duplicate`: the test itself is what remembers the Message-ID.
if allof (not string :is "${boundary}" "",
	  not body :raw :comparator "i;octet" :contains "--${boundary}--") {
	fileinto :create "Partial";
} elsif allof (body :raw :matches "*?*", duplicate :header "Message-ID" :seconds 604800) {
	fileinto :create "Duplicates";
}
