//! The part of the page about each container: what is mounted, and what its layer holds.

use super::{Page, held};
use crate::report::{ContainerReport, MountReport, Report};
use crate::tally::{Layer, LayerFile, NoiseAmount};
use crate::words::{amount, bytes, count};

/// So many of the largest and of the newest files are shown.
const FILES: usize = 5;

impl Page {
    pub(super) fn containers(&mut self, report: &Report) {
        if report.containers.is_empty() {
            return;
        }
        self.raw("<section id=\"containers\">\n<h2>Containers</h2>\n");
        for container in &report.containers {
            self.container(container, report.of_container(&container.name).count() as u64);
        }
        self.raw("</section>\n");
    }

    fn container(&mut self, container: &ContainerReport, findings: u64) {
        self.raw("<article class=\"container\">\n")
            .element("h3", &container.name)
            .raw("\n<p class=\"meta\">");
        self.element("code", &container.image).raw(" · ").text(&container.state);
        if !container.services.is_empty() {
            self.raw(" · ").text(&container.services.join(", "));
        }
        if findings > 0 {
            self.raw(" · ").text(&count(findings, "finding"));
        }
        self.raw("</p>\n");
        if container.lost_bytes > 0 {
            self.raw("<p class=\"loses\">Would lose <strong>").text(&bytes(container.lost_bytes));
            self.raw("</strong>.</p>\n");
        }
        self.mounts(&container.mounts);
        match (&container.layer, &container.layer_error) {
            (Some(layer), _) => self.layer(layer),
            (None, Some(why)) => {
                self.raw("<p>The writable layer could not be looked at: ").text(why).raw(".</p>\n");
            }
            (None, None) => {}
        }
        self.raw("</article>\n");
    }

    fn mounts(&mut self, mounts: &[MountReport]) {
        if mounts.is_empty() {
            self.raw("<p class=\"quiet\">Nothing is mounted into it.</p>\n");
            return;
        }
        self.table("Mounts", &["In the container", "From", "Access", "Size", "Data of"]);
        for mount in mounts {
            self.raw("<tr><th scope=\"row\">").element("code", &mount.destination).raw("</th><td>");
            match (&mount.volume, mount.anonymous) {
                (_, true) => self.raw("volume without a name"),
                (Some(volume), false) => self.raw("volume ").element("code", volume),
                (None, false) if mount.kind == "bind" => self.raw("host ").element("code", &mount.source),
                (None, false) => self.text(&mount.kind),
            };
            if let Some(driver) = &mount.driver {
                self.raw(", driver ").text(driver);
            }
            self.raw("</td>").element("td", if mount.read_write { "read and write" } else { "read only" });
            self.element("td.number", &held(mount.empty, mount.used_bytes));
            self.element("td", mount.holds.as_deref().unwrap_or("–")).raw("</tr>\n");
        }
        self.table_end();
    }

    fn layer(&mut self, layer: &Layer) {
        self.raw("<p class=\"layer\">");
        if layer.matter.files == 0 {
            self.raw("The writable layer holds nothing that matters.");
        } else {
            self.raw("The writable layer holds <strong>").text(&amount(layer.matter)).raw("</strong>.");
        }
        let entries = [("added", layer.added), ("changed", layer.changed), ("deleted", layer.deleted)];
        let entries: Vec<String> = entries
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(word, number)| format!("{number} {word}"))
            .collect();
        if !entries.is_empty() {
            self.raw(" Entries: ").text(&entries.join(", ")).raw(".");
        }
        self.raw("</p>\n");
        if !layer.places.is_empty() {
            self.table("Where it is", &["Directory", "Size", "Files"]);
            for place in &layer.places {
                let rest = if place.rest { " (the rest)" } else { "" };
                self.raw("<tr><th scope=\"row\">").element("code", &place.path).raw(rest).raw("</th>");
                self.element("td.number", &bytes(place.amount.bytes));
                self.element("td.number", &place.amount.files.to_string()).raw("</tr>\n");
            }
            self.table_end();
            // Of a few files, the largest and the newest are the same ones.
            if layer.matter.files <= FILES as u64 {
                self.files("Files", layer.largest.iter());
            } else {
                self.raw("<div class=\"pair\">\n");
                self.files("Largest files", layer.largest.iter().take(FILES));
                self.files("Newest files", layer.newest.iter().take(FILES));
                self.raw("</div>\n");
            }
        }
        self.noise(&layer.noise);
    }

    fn files<'a>(&mut self, caption: &str, files: impl Iterator<Item = &'a LayerFile>) {
        self.table(caption, &["File", "Size", "Written"]);
        for file in files {
            self.raw("<tr><th scope=\"row\">").element("code", &file.path).raw("</th>");
            let written = file.modified.strftime("%Y-%m-%d %H:%M").to_string();
            self.element("td.number", &bytes(file.bytes)).element("td.time", &written).raw("</tr>\n");
        }
        self.table_end();
    }

    fn noise(&mut self, noise: &[NoiseAmount]) {
        if noise.is_empty() {
            return;
        }
        let parts: Vec<String> =
            noise.iter().map(|noise| format!("{} {}", noise.name, bytes(noise.amount.bytes))).collect();
        self.raw("<p class=\"quiet\">Not counted, because nobody misses it: ");
        self.text(&parts.join(", ")).raw(".</p>\n");
    }
}
