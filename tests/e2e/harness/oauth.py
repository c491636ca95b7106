"""A provider's OAuth 2 server: HTTPS for clients, plain HTTP for the mail server that asks about tokens.

It follows RFC 6749, 7636 and 8628 as a provider does, checks what a client must send, and can be told to answer otherwise.
"""
import base64
import hashlib
import http.server
import json
import secrets
import ssl
import threading
import urllib.parse
import urllib.request

CLIENT, CLIENT_SECRET = "sendq-test-client", "client s3cret+&="


class Oauth:
    def __init__(self, certs, email):
        self.email = email
        self.good = set()        # access tokens that the mail server may take
        self.refresh = set()     # refresh tokens that are good
        self.codes = {}          # code or device code: what it was given for
        self.device_answers = [] # what polling is answered, one each; then the tokens
        self.token_answers = []  # (status, octets) instead of a token, one each
        self.rotate = False      # each refresh token is good once
        self.lifetime = 3600
        self.requests = []       # (path, form) of clients
        self.infos = 0           # how often the mail server asked
        self.https = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certs.cert, certs.key)
        self.https.socket = context.wrap_socket(self.https.socket, server_side=True)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        for server in (self.https, self.http):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.base = "https://localhost:%d" % self.https.server_address[1]

    def settings(self, ca, **more):
        """Of a route."""
        return {"auth": "oauth", "oauth_client_id": CLIENT, "oauth_token_url": self.base + "/token", "oauth_auth_url": self.base + "/authorize?tenant=x",
                "oauth_device_url": self.base + "/device", "oauth_scope": "mail.send offline", "oauth_ca_file": ca, **more}

    def new_refresh(self):
        token = "r." + secrets.token_urlsafe(900)
        self.refresh.add(token)
        return token

    def tokens(self):
        access = "a." + secrets.token_urlsafe(1200)
        self.good.add(access)
        return {"access_token": access, "token_type": "Bearer", "expires_in": self.lifetime}

    # ---- what is asked

    def token(self, form):
        if self.token_answers:
            return self.token_answers.pop(0)
        grant = form.get("grant_type")
        if form.get("client_id") != CLIENT or ("client_secret" in form and form["client_secret"] != CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        if grant == "refresh_token":
            if form["refresh_token"] not in self.refresh:
                return 400, {"error": "invalid_grant", "error_description": "Token has been revoked."}
            out = self.tokens()
            if self.rotate:
                self.refresh.discard(form["refresh_token"])
                out["refresh_token"] = self.new_refresh()
            return 200, out
        if grant == "urn:ietf:params:oauth:grant-type:device_code" and form["device_code"] in self.codes:
            if self.device_answers:
                return 400, {"error": self.device_answers.pop(0)}
            return 200, dict(self.tokens(), refresh_token=self.new_refresh())
        if grant == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if not asked or asked["redirect_uri"] != form["redirect_uri"] or asked["code_challenge"] != digest:
                return 400, {"error": "invalid_grant", "error_description": "PKCE"}
            return 200, dict(self.tokens(), refresh_token=self.new_refresh())
        return 400, {"error": "unsupported_grant_type"}

    def device(self, form):
        code = secrets.token_urlsafe(32)
        self.codes[code] = form
        return 200, {"device_code": code, "user_code": "WDJB-MJHT", "verification_uri": self.base + "/enter", "expires_in": 600, "interval": 1}

    def _handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body):
                octets = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def do_POST(self):
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                server.requests.append((self.path, form))
                self.answer(*(server.device(form) if self.path == "/device" else server.token(form)))

            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                if url.path == "/tokeninfo":
                    server.infos += 1
                    if query.get("access_token") in server.good:
                        self.answer(200, {"email": server.email, "expires_in": 100})
                    else:
                        self.answer(401, {"error": "invalid_token"})
                else:
                    self.answer(404, {})

            def log_message(self, *args):
                pass

        return Handler

    @property
    def tokeninfo(self):
        return "http://127.0.0.1:%d/tokeninfo?access_token=" % self.http.server_address[1]

    def consent(self, url, error=None, state=None):
        """What a browser does: the person agrees (or not), and it is sent back to the client. The page it sees."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        code = secrets.token_urlsafe(32)
        self.codes[code] = query
        back = {"state": state or query["state"]}
        back.update({"error": error, "error_description": "The person said no"} if error else {"code": code})
        with urllib.request.urlopen(query["redirect_uri"] + "?" + urllib.parse.urlencode(back), timeout=10) as page:
            return page.read().decode()

    def stop(self):
        for server in (self.https, self.http):
            server.shutdown()
            server.server_close()
