//! `login` and `logout`.

use std::io::{self, BufRead, Read};

use portolan_api::AuthConfig;

use crate::command::{Arity, Command};
use crate::config::ConfigFile;
use crate::credentials::{HUB, host_of};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::json::Json;
use crate::session::{Session, line_err, line_out, write_out};
use crate::terminal::{read_secret, stdin_is_terminal};

/// `login`.
pub(super) const LOGIN: Command = Command {
    flags: &[&[
        Flag::text("username", "Username").short('u'),
        Flag::text("password", "Password or token, or \"-\" to read it from standard input").short('p'),
        Flag::switch("password-stdin", "Take the password or token from standard input"),
    ]],
    examples: &[("With a token from a file", "login -u me --password-stdin ghcr.io < token")],
    ..Command::new(
        "login",
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry (Docker Hub unless another is named)",
        Arity::AtMost(1),
        |session, matches| Box::pin(login(session, matches)),
    )
};

/// `logout`.
pub(super) const LOGOUT: Command =
    Command::new("logout", "[SERVER]", "Log out from a registry", Arity::AtMost(1), |session, matches| {
        Box::pin(async move { logout(&session, &matches) })
    });

async fn login(session: Session, matches: Matches) -> Outcome {
    let server = match matches.args.first().map(String::as_str) {
        None | Some("docker.io") => HUB,
        Some(server) => server,
    };
    let mut config = ConfigFile::read(session.config.path.clone())?;
    let (username, password) = given(&matches)?;
    if username.is_empty()
        && password.is_empty()
        && let Some(known) = config.get(server)?.filter(|known| !known.username.is_empty())
        && !known.password.is_empty()
    {
        line_err(&format!("Authenticating with existing credentials... [Username: {}]", known.username));
        match authenticate(&session, &mut config, known).await {
            Ok(status) => return Ok(status),
            Err(why) => line_err(&format!("Login did not succeed, error: {}", why.text())),
        }
    }
    if (username.is_empty() || password.is_empty()) && !stdin_is_terminal() {
        return Err(Failure::new("error: cannot perform an interactive login from a non-TTY device"));
    }
    let username = if username.is_empty() { ask_username()? } else { username };
    let password = if password.is_empty() { ask_password()? } else { password };
    let server_address = server.to_owned();
    let auth = AuthConfig { username, password, server_address, ..AuthConfig::default() };
    authenticate(&session, &mut config, auth).await
}

/// What the flags say; empty for what is to be asked.
fn given(matches: &Matches) -> Result<(String, String), Failure> {
    let (username, password) = (matches.text_or_empty("username"), matches.text_or_empty("password"));
    let from_stdin = matches.on("password-stdin") || password == "-";
    if from_stdin && matches.has("password") && password != "-" {
        return Err(Failure::new("conflicting options: cannot specify both --password and --password-stdin"));
    }
    if from_stdin && !matches.has("username") {
        return Err(Failure::new("the --password-stdin option requires --username to be set"));
    }
    if matches.has("username") && username.is_empty() {
        return Err(Failure::new("username is empty"));
    }
    if matches.has("password") && password.is_empty() {
        return Err(Failure::new("password is empty"));
    }
    if !from_stdin {
        if !password.is_empty() {
            line_err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        return Ok((username.to_owned(), password.to_owned()));
    }
    let mut secret = String::new();
    io::stdin().lock().read_to_string(&mut secret)?;
    let secret = secret.strip_suffix('\n').unwrap_or(&secret);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.trim().is_empty() {
        return Err(Failure::new("password is empty"));
    }
    Ok((username.to_owned(), secret.to_owned()))
}

fn ask_username() -> Result<String, Failure> {
    write_out("Username: ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        "" => Err(Failure::new("error: username is required")),
        name => Ok(name.to_owned()),
    }
}

fn ask_password() -> Result<String, Failure> {
    write_out("Password: ")?;
    let secret = read_secret();
    line_out("")?;
    match secret? {
        // What a shell reports of a program that SIGINT ended.
        None => Err(Failure::Text { text: String::new(), status: 130 }),
        Some(secret) if secret.is_empty() => Err(Failure::new("error: password is required")),
        Some(secret) => Ok(secret),
    }
}

/// Lets the daemon check credentials, and keeps them.
async fn authenticate(session: &Session, config: &mut ConfigFile, mut auth: AuthConfig) -> Outcome {
    let body = serde_json::to_value(&auth).map_err(|why| Failure::new(why.to_string()))?;
    let answer = session.client.post("/auth", body).await?;
    let token = answer.text("IdentityToken");
    if !token.is_empty() {
        auth.password.clear();
        auth.identity_token = token.to_owned();
    }
    if let Some(path) = config.store(&auth)? {
        line_err(&format!("\nWARNING! Your credentials are stored unencrypted in '{}'.", path.display()));
        line_err("Configure a credential helper to remove this warning. See");
        line_err("https://docs.docker.com/go/credential-store/\n");
    }
    line_out(answer.text("Status"))?;
    Ok(0)
}

fn logout(session: &Session, matches: &Matches) -> Outcome {
    let (shown, keys) = match matches.args.first().map(String::as_str) {
        None | Some("docker.io") => (HUB, vec![HUB.to_owned()]),
        Some(server) => {
            let host = host_of(server);
            let keys =
                [server.to_owned(), host.to_owned(), format!("http://{host}"), format!("https://{host}")];
            (host, keys.to_vec())
        }
    };
    line_out(&format!("Removing login credentials for {shown}"))?;
    ConfigFile::read(session.config.path.clone())?.erase(&keys)?;
    Ok(0)
}
