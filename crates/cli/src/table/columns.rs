//! Lining up columns, by the rules of Go's `text/tabwriter`: cells end in a tab, a column is a block
//! of adjacent lines that have a cell there, and the last cell of a line is not part of a column.

/// Lines up `text`: every column is at least `min_width` wide, with `padding` spaces behind the
/// widest cell.
pub(crate) fn align(text: &str, min_width: usize, padding: usize) -> String {
    let ends_open = !text.ends_with('\n');
    let mut lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    if !ends_open {
        lines.pop();
    }
    let mut widths: Vec<Vec<usize>> =
        lines.iter().map(|line| vec![0; line.len().saturating_sub(1)]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            if widths[start].len() <= column {
                start += 1;
                continue;
            }
            let end = (start..lines.len()).find(|line| widths[*line].len() <= column).unwrap_or(lines.len());
            let widest = lines[start..end].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let width = (widest + padding).max(min_width);
            for line in &mut widths[start..end] {
                line[column] = width;
            }
            start = end;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (at, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths[at].get(column) {
                let missing = width - cell.chars().count();
                out.extend(std::iter::repeat_n(' ', missing));
            }
        }
        if at + 1 < lines.len() || !ends_open {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_blocks_of_lines() {
        assert_eq!(
            align("NETWORK ID\tNAME\tDRIVER\n0123456789ab\tbridge\tbridge\n", 10, 3),
            "NETWORK ID     NAME      DRIVER\n0123456789ab   bridge    bridge\n"
        );
        assert_eq!(align("a\tb\nlong line\nc\td\n", 2, 1), "a b\nlong line\nc d\n");
    }
}
