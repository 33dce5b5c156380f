//! `import`, `load`, `save` and `export`: archives in and out.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};

use bytes::Bytes;
use http::Method;

use super::create::container_path;
use crate::client::{BodyReader, Upload, empty, target, upload};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Matches};
use crate::progress;
use crate::reference::{platform_query, split_tag};
use crate::session::Session;

/// `import`.
pub(super) const IMPORT: Command = Command {
    flags: &[&[
        Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
        Flag::text("message", "Message of the image's history").short('m'),
        Flag::text("platform", "Platform of the image"),
    ]],
    also: &["image import", "import"],
    examples: &[
        ("Make an image of a directory", "import -c 'CMD [\"sh\"]' rootfs.tar mybox"),
        ("", "import - mybox < rootfs.tar"),
    ],
    ..Command::new(
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        Arity::Between(1, 2),
        |session, matches| Box::pin(import(session, matches)),
    )
};

/// `load`.
pub(super) const LOAD: Command = Command {
    flags: &[&[
        Flag::text("input", "Read from a file instead of standard input").short('i'),
        Flag::text("platform", "Only the image for this platform (os/arch[/variant])"),
        Flag::switch("quiet", "Do not show progress").short('q'),
    ]],
    also: &["image load", "load"],
    examples: &[("", "load -i images.tar")],
    ..Command::new(
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        Arity::Exactly(0),
        |session, matches| Box::pin(load(session, matches)),
    )
};

/// `save`.
pub(super) const SAVE: Command = Command {
    flags: &[&[
        Flag::text("output", "Write to a file instead of standard output").short('o'),
        Flag::text("platform", "Only the image for this platform (os/arch[/variant])"),
    ]],
    also: &["image save", "save"],
    examples: &[("", "save -o images.tar nginx busybox")],
    ..Command::new(
        "save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        Arity::AtLeast(1),
        |session, matches| Box::pin(save(session, matches)),
    )
};

/// `export`.
pub(super) const EXPORT: Command = Command {
    flags: &[&[Flag::text("output", "Write to a file instead of standard output").short('o')]],
    also: &["container export", "export"],
    examples: &[("", "export -o web.tar web")],
    ..Command::new(
        "export",
        "[OPTIONS] CONTAINER",
        "Export a container's filesystem as a tar archive",
        Arity::Exactly(1),
        |session, matches| Box::pin(export(session, matches)),
    )
};

async fn import(session: Session, matches: Matches) -> Outcome {
    let source = &matches.args[0];
    let (repository, tag) = match matches.args.get(1) {
        Some(name) => split_tag(name),
        None => ("", None),
    };
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let chunks: Option<Upload> = match source.as_str() {
        "-" => Some(read_chunks(io::stdin())),
        _ if is_url => None,
        path => Some(read_chunks(open(path)?)),
    };
    let from = if is_url { source.as_str() } else { "-" };
    let mut query = vec![
        ("fromSrc", from),
        ("repo", repository),
        ("tag", tag.unwrap_or_default()),
        ("message", matches.text_or_empty("message")),
        ("platform", matches.text_or_empty("platform")),
    ];
    query.extend(matches.list("change").into_iter().map(|change| ("changes", change)));
    let path = target("/images/create", &query);
    let body = chunks.map_or_else(empty, upload);
    let (_, answer) = session.client.stream(Method::POST, &path, body).await?;
    progress::show(answer, progress::To::Stdout).await?;
    Ok(0)
}

async fn load(session: Session, matches: Matches) -> Outcome {
    let platform = platform_query(matches.text_or_empty("platform"))?;
    let chunks = match matches.text("input") {
        Some(path) => read_chunks(open(path)?),
        None if io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is empty"));
        }
        None => read_chunks(io::stdin()),
    };
    // Without a terminal there is no progress to see.
    let quiet = if matches.on("quiet") || !io::stdout().is_terminal() { "1" } else { "" };
    let path = target("/images/load", &[("quiet", quiet), ("platform", &platform)]);
    let (_, answer) = session.client.stream(Method::POST, &path, upload(chunks)).await?;
    progress::show(answer, progress::To::Stdout).await?;
    Ok(0)
}

async fn save(session: Session, matches: Matches) -> Outcome {
    let platform = platform_query(matches.text_or_empty("platform"))?;
    let mut query: Vec<_> = matches.args.iter().map(|name| ("names", name.as_str())).collect();
    query.push(("platform", &platform));
    let output = Output::open(matches.text_or_empty("output"), "save image")?;
    let path = target("/images/get", &query);
    let (_, body) = session.client.stream(Method::GET, &path, empty()).await?;
    output.take(body).await
}

async fn export(session: Session, matches: Matches) -> Outcome {
    let output = Output::open(matches.text_or_empty("output"), "export container")?;
    let path = container_path(&matches.args[0], "/export");
    let (_, body) = session.client.stream(Method::GET, &path, empty()).await?;
    output.take(body).await
}

fn open(path: &str) -> Result<File, Failure> {
    File::open(path).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound => Failure::new(format!("open {path}: no such file or directory")),
        _ => Failure::new(format!("open {path}: {why}")),
    })
}

/// The chunks of a file or of standard input, read in a thread of its own.
pub(super) fn read_chunks(mut from: impl Read + Send + 'static) -> Upload {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0u8; 64 * 1024];
            let read = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    buffer.truncate(length);
                    Ok(Bytes::from(buffer))
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                Err(why) => Err(why),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    received(receiver)
}

/// A channel as the chunks of an upload.
pub(super) fn received(receiver: tokio::sync::mpsc::Receiver<io::Result<Bytes>>) -> Upload {
    Box::pin(futures_util::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    }))
}

/// Where an archive goes: a file that appears whole or not at all, or standard output.
enum Output {
    Stdout,
    File { path: String, part: String, file: File },
}

impl Output {
    fn open(path: &str, what: &str) -> Result<Output, Failure> {
        if path.is_empty() {
            if io::stdout().is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            return Ok(Output::Stdout);
        }
        let cannot = |why: String| Failure::new(format!("failed to {what}: {why}"));
        if std::path::Path::new(path).is_dir() {
            return Err(cannot("cannot write to a directory".to_owned()));
        }
        let part = format!("{path}.part-{}", std::process::id());
        let parent = match std::path::Path::new(path).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => std::path::Path::new("."),
        };
        if !parent.exists() {
            let parent = parent.display();
            return Err(cannot(format!("invalid output path: stat {parent}: no such file or directory")));
        }
        let file = File::create(&part).map_err(|why| cannot(format!("open {path}: {why}")))?;
        Ok(Output::File { path: path.to_owned(), part, file })
    }

    async fn take(mut self, mut body: BodyReader) -> Outcome {
        let copied = self.copy(&mut body).await;
        if let Output::File { path, part, .. } = &self {
            if copied.is_ok() {
                std::fs::rename(part, path)?;
            } else {
                let _ = std::fs::remove_file(part);
            }
        }
        copied.map(|()| 0)
    }

    async fn copy(&mut self, body: &mut BodyReader) -> Result<(), Failure> {
        while let Some(chunk) = body.chunk().await? {
            match self {
                Output::Stdout => io::stdout().lock().write_all(&chunk)?,
                Output::File { file, .. } => file.write_all(&chunk)?,
            }
        }
        io::stdout().flush()?;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // A request that failed leaves no part behind; after a rename there is none.
        if let Output::File { part, .. } = self {
            let _ = std::fs::remove_file(part);
        }
    }
}
