//! Reports: what was run ([`model`]), what follows from it ([`summary`]), and how it is shown: JSON,
//! a Markdown page ([`markdown`]), charts ([`svg`]) and one last line ([`last_line`]).
//!
//! JSON holds every single run, so that nothing about a report has to be believed.

use std::path::{Path, PathBuf};
use std::{fs, io};

pub mod charts;
pub mod last_line;
pub mod markdown;
pub mod model;
pub mod summary;
pub mod svg;

use model::Report;
use summary::Summary;

/// Writes `report.json`, `report.md` and the charts into `folder`; returns what was written.
pub fn write(report: &Report, folder: &Path) -> io::Result<Vec<PathBuf>> {
    #[derive(serde::Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        report: &'a Report,
        summary: &'a Summary,
    }
    let summary = Summary::of(report);
    let json = serde_json::to_string_pretty(&Whole { report, summary: &summary })?;
    let mut files = vec![("report.json", json), ("report.md", markdown::page(report, &summary))];
    files.extend(charts::all(report, &summary));
    fs::create_dir_all(folder)?;
    let mut written = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text)?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
pub(crate) mod tests;
