//! `create`, and making a container for `run`.

use portolan_api::CreateRequest;
use serde_json::Value;

use super::pull;
use crate::client::{ClientError, target};
use crate::command::{Arity, Command};
use crate::create::{CREATE, LIMITS, request};
use crate::failure::{Failure, Outcome};
use crate::flags::Matches;
use crate::json::Json;
use crate::progress;
use crate::reference::{self, with_default_tag};
use crate::session::{Session, line_err, line_out};

/// `create`.
pub(super) const CREATE_COMMAND: Command = Command {
    flags: &[CREATE, LIMITS],
    stop_at_word: true,
    also: &["container create", "create"],
    examples: &[
        ("Make a container and start it later", "create --name web -p 8080:80 nginx"),
        ("", "start web"),
    ],
    ..Command::new(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        Arity::AtLeast(1),
        |session, matches| Box::pin(create(session, matches)),
    )
};

async fn create(session: Session, matches: Matches) -> Outcome {
    let request = request_of(&session, &matches)?;
    let id = make(&session, &matches, request).await?;
    line_out(&id)?;
    Ok(0)
}

/// The request that the flags ask for; a mistake in them ends with status 125.
pub(super) fn request_of(session: &Session, matches: &Matches) -> Result<CreateRequest, Failure> {
    let pull = matches.text("pull").unwrap_or("missing");
    let checked = match pull {
        "always" | "missing" | "never" | "" => request(matches),
        other => Err(format!(
            "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
        )),
    };
    let checked = checked.and_then(|mut request| {
        reference::check(&request.config.image)?;
        let env = request.config.env.get_or_insert_default();
        let proxies = session.config.proxy_variables(&session.client.host().to_string(), env);
        env.extend(proxies);
        Ok(request)
    });
    checked.map_err(|why| Failure::Text { text: session.with_pointer(&why), status: 125 })
}

/// Makes the container, pulling its image if need be, and returns its id.
pub(super) async fn make(
    session: &Session,
    matches: &Matches,
    request: CreateRequest,
) -> Result<String, Failure> {
    let id_file = matches.text("cidfile").map(IdFile::new).transpose()?;
    let image = request.config.image.clone();
    let body = serde_json::to_value(&request)
        .map_err(|why| Failure::new(format!("cannot write the request: {why}")))?;
    let name = matches.text_or_empty("name");
    let platform = matches.text_or_empty("platform");
    let path = target("/containers/create", &[("name", name), ("platform", platform)]);
    let quiet = matches.on("quiet");
    let when = matches.text("pull").unwrap_or("missing");
    if when == "always" {
        pull_image(session, &image, platform, quiet).await?;
    }
    let mut answer = session.client.post(&path, body.clone()).await;
    if matches!(when, "missing" | "") && answer.as_ref().is_err_and(is_missing_image) {
        if !quiet {
            line_err(&format!("Unable to find image '{}' locally", with_default_tag(&image)));
        }
        pull_image(session, &image, platform, quiet).await?;
        answer = session.client.post(&path, body).await;
    }
    let answer = answer?;
    for warning in answer.texts("Warnings") {
        line_err(&format!("WARNING: {warning}"));
    }
    let id = answer.text("Id").to_owned();
    if let Some(file) = id_file {
        file.write(&id)?;
    }
    Ok(id)
}

fn is_missing_image(why: &ClientError) -> bool {
    why.is_not_found() && why.message().to_lowercase().contains("no such image")
}

async fn pull_image(session: &Session, image: &str, platform: &str, quiet: bool) -> Result<(), Failure> {
    let body = pull::start(session, image, platform, false).await?;
    let out = if quiet { progress::To::Nowhere } else { progress::To::Stderr };
    progress::show(body, out).await
}

/// The file that gets the container's id. It must not be there before, and is not left behind if
/// there is no container.
struct IdFile {
    path: String,
    written: bool,
}

impl IdFile {
    fn new(path: &str) -> Result<IdFile, Failure> {
        if std::path::Path::new(path).exists() {
            return Err(Failure::new(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        std::fs::File::create(path)
            .map_err(|why| Failure::new(format!("failed to create the container ID file: {why}")))?;
        Ok(IdFile { path: path.to_owned(), written: false })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        std::fs::write(&self.path, id)
            .map_err(|why| Failure::new(format!("failed to write the container ID ({id}) to file: {why}")))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The path of a container's resource.
pub(super) fn container_path(name: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", crate::client::escape(name))
}

/// A POST without a body to a container's resource.
pub(super) async fn post_container(
    session: &Session,
    name: &str,
    rest: &str,
    query: &[(&str, &str)],
) -> Result<Value, ClientError> {
    let path = target(&container_path(name, rest), query);
    session.client.post(&path, Value::Null).await
}
