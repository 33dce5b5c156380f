//! What `ps` shows of a container.

use serde_json::Value;

use super::{List, ellipsis, labels, ports};
use crate::json::Json;
use crate::template::{go_quote, truncate_id};
use crate::units;

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const DEFAULT: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const WITH_SIZE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/// Writes the list of `GET /containers/json`.
///
/// # Errors
/// When the template is wrong or standard output is closed.
pub(crate) fn write(
    format: &str,
    quiet: bool,
    size: bool,
    truncate: bool,
    containers: &[Value],
) -> Result<(), crate::failure::Failure> {
    let now = units::now();
    let field = |item: &Value, name: &str| field(item, name, truncate, now);
    let list = list(size, &field);
    if containers.is_empty() {
        // A wrong column is told even when there is nothing to show.
        list.render(format, quiet, &[Value::Null])?;
    }
    list.write(format, quiet, containers)
}

fn list<'l>(size: bool, field: &'l dyn Fn(&Value, &str) -> Option<Value>) -> List<'l> {
    List {
        type_name: "*formatter.ContainerContext",
        headings: HEADINGS,
        default: if size { WITH_SIZE } else { DEFAULT },
        quiet: "{{.ID}}",
        field,
    }
}

fn field(item: &Value, name: &str, truncate: bool, now: f64) -> Option<Value> {
    let text = match name {
        "ID" if truncate => truncate_id(item.text("Id")),
        "ID" => item.text("Id").to_owned(),
        "Names" => names(item, truncate),
        "Image" => image(item, truncate),
        "Command" if truncate => go_quote(&ellipsis(item.text("Command"), 20)),
        "Command" => go_quote(item.text("Command")),
        "CreatedAt" => units::local_time(item.int("Created")),
        "RunningFor" => units::ago(now, item.number("Created")),
        "Ports" => ports::display(item.items("Ports")),
        "State" => item.text("State").to_owned(),
        "Status" => item.text("Status").to_owned(),
        "Size" => size(item),
        "Labels" => return Some(labels(item)),
        "Mounts" => mounts(item, truncate),
        "LocalVolumes" => {
            item.items("Mounts").iter().filter(|mount| mount.text("Driver") == "local").count().to_string()
        }
        "Networks" => item
            .at(&["NetworkSettings"])
            .entries("Networks")
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(","),
        "Platform" => return Some(item.at(&["ImageManifestDescriptor", "platform"]).clone()),
        _ => return None,
    };
    Some(Value::from(text))
}

fn names(item: &Value, truncate: bool) -> String {
    let mut names = item
        .texts("Names")
        .into_iter()
        .map(|name| name.trim_start_matches('/'))
        // Names with a slash are links from other containers.
        .filter(|name| !truncate || !name.contains('/'));
    if truncate { names.next().unwrap_or_default().to_owned() } else { names.collect::<Vec<_>>().join(",") }
}

fn image(item: &Value, truncate: bool) -> String {
    let image = item.text("Image");
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if !truncate {
        return image.to_owned();
    }
    let short = truncate_id(item.text("ImageID"));
    if !short.is_empty() && truncate_id(image) == short {
        return short;
    }
    let tagged = image.split_once('@').map_or(image, |(name, _)| name);
    if tagged == "sha256" || image.starts_with("sha256:") {
        return image.to_owned();
    }
    crate::reference::familiar(tagged)
}

fn size(item: &Value) -> String {
    let own = units::human_size(item.number("SizeRw"));
    match item.number("SizeRootFs") {
        all if all > 0.0 => format!("{own} (virtual {})", units::human_size(all)),
        _ => own,
    }
}

fn mounts(item: &Value, truncate: bool) -> String {
    item.items("Mounts")
        .iter()
        .map(|mount| match mount.text("Name") {
            "" => mount.text("Source"),
            name => name,
        })
        .map(|name| if truncate { ellipsis(name, 15) } else { name.to_owned() })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_of_ps() {
        let containers = [json!({
            "Id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "Names": ["/other/web", "/web"], "Image": "nginx", "ImageID": "sha256:77",
            "Command": "nginx -g 'daemon off;'", "Created": 1000,
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 18080, "Type": "tcp"}],
            "Status": "Up 4 seconds", "Labels": {"b": "2", "a": "1"},
        })];
        let field = |item: &Value, name: &str| field(item, name, true, 1005.0);
        let list = list(false, &field);
        assert_eq!(
            list.render("", false, &containers).unwrap(),
            "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS                   NAMES\n\
             0123456789ab   nginx     \"nginx -g 'daemon of…\"   5 seconds ago   Up 4 seconds   0.0.0.0:18080->80/tcp   web\n"
        );
        for (format, wanted) in [
            ("{{.Names}} {{.Label \"a\"}} {{.Labels}}", "web 1 a=1,b=2\n"),
            ("table {{.Names}}\\t{{upper .Image}}", "NAMES     IMAGE\nweb       NGINX\n"),
        ] {
            assert_eq!(list.render(format, false, &containers).unwrap(), wanted);
        }
        assert_eq!(
            list.render("{{.Foo}}", false, &containers).unwrap_err().text(),
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.ContainerContext"
        );
    }
}
