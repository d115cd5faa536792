/// Divides a play into the texts of its roles, one for each client.
public enum PlayScript {
    /// The lines of each role, in order, roles in order of their first speech.
    ///
    /// A header is a line of more than one character that ends with a colon and begins the text or follows an empty line.
    /// Other lines with a colon at the end belong to the speech.
    public static func roles(in text: String) -> [(role: String, lines: [String])] {
        var order: [String] = []
        var lines: [String: [String]] = [:]
        var current: String?
        var previousIsEmpty = true
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            defer { previousIsEmpty = line.isEmpty }
            if line.isEmpty { continue }
            if previousIsEmpty && line.count > 1 && line.hasSuffix(":") {
                current = String(line.dropLast())
            } else if let current {
                if lines[current] == nil { order.append(current) }
                lines[current, default: []].append(String(line))
            }
        }
        return order.map { ($0, lines[$0] ?? []) }
    }
}
