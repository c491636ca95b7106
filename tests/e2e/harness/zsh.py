"""What zsh offers, asked in a terminal as a person would ask."""
import os
import pty
import signal
import tempfile
import threading

from .tap import until

# Words offered go into a file, each question's end is a line "==".
ZSHRC = """
setopt extended_glob
fpath=(%(folder)s $fpath)
autoload -Uz compinit
compinit -u -D
sendq() { printf '{"id":"1000","x":1}\\n{"id":"1001","x":1}\\n' }
compadd() {
	local -a found
	if [[ " ${(j: :)@[1,(i)(-|--)]} " != *" -"[a-zA-Z]#[OAD]" "* ]]; then
		builtin compadd -O found "$@"
		print -rl -- $found >>%(out)s
	fi
	builtin compadd "$@"
}
over() { print -r -- '==' >>%(out)s; comppostfuncs=(over) }
comppostfuncs=(over)
bindkey '^I' list-choices
# The file is there when the editor is, which reads what is typed from then on.
zle-line-init() { [[ -e %(out)s ]] || : >%(out)s }
zle -N zle-line-init
"""


def _drain(fd):
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass


def offers(folder, lines):
    """A set of words for each line, by the completions in the folder; ids are 1000 and 1001."""
    with tempfile.TemporaryDirectory() as home:
        out = os.path.join(home, "out")
        with open(os.path.join(home, ".zshrc"), "w") as f:
            f.write(ZSHRC % {"folder": folder, "out": out})
        pid, fd = pty.fork()
        if pid == 0:
            os.execvpe("zsh", ["zsh", "-d", "-i"], {**os.environ, "ZDOTDIR": home, "HOME": home, "TERM": "dumb"})
        threading.Thread(target=_drain, args=(fd,), daemon=True).start()

        def answers():
            with open(out) as f:
                return f.read().split("==\n")[:-1]
        try:
            until(lambda: os.path.exists(out), 20, "zsh is ready")
            for n, line in enumerate(lines, 1):
                os.write(fd, b"\x15" + line.encode() + b"\t")
                until(lambda: len(answers()) >= n, 20, "zsh answers '%s'" % line)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(fd)
        return [set(words.split()) for words in answers()]
