"""A throw-away CA and certificates, by the openssl program."""
import os
import subprocess


def _openssl(*args):
    subprocess.run(("openssl",) + args, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Certs:
    """`ca`: the file a client trusts; `cert`, `key`: good for localhost and 127.0.0.1;
    `other_cert`, `other_key`: of the same CA, for another name; `stranger_*`: of nobody known."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self._ca_key = self._path("ca.pem"), self._path("ca.key")
        self._self_signed("ca", "sendq test CA")
        self.cert, self.key = self.signed("server", "DNS:localhost,IP:127.0.0.1")
        self.other_cert, self.other_key = self.signed("other", "DNS:mail.elsewhere.test")
        self._self_signed("stranger", "localhost")
        self.stranger_cert, self.stranger_key = self._path("stranger.pem"), self._path("stranger.key")

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _self_signed(self, name, common_name):
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                 "-subj", "/CN=" + common_name, "-keyout", self._path(name + ".key"), "-out", self._path(name + ".pem"))

    def signed(self, name, names):
        """One more of the CA: (certificate, key)."""
        with open(self._path(name + ".ext"), "w") as f:
            f.write("subjectAltName=%s\n" % names)
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + name,
                 "-keyout", self._path(name + ".key"), "-out", self._path(name + ".csr"))
        _openssl("x509", "-req", "-in", self._path(name + ".csr"), "-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial",
                 "-days", "30", "-extfile", self._path(name + ".ext"), "-out", self._path(name + ".pem"))
        return self._path(name + ".pem"), self._path(name + ".key")
