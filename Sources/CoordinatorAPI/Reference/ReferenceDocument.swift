import Yams

/// One call of the description.
struct ReferenceOperation {
    var id: String
    var method: String
    var path: String
    var tag: String
    var node: Node
    /// Those of the path, then its own; references are followed.
    var parameters: [Node]
}

/// Reads an OpenAPI description in the order in which it was written.
struct ReferenceDocument {
    let root: Node

    var tags: [String] { root["tags"]?.array().compactMap { $0["name"]?.string } ?? [] }

    var operations: [ReferenceOperation] {
        pairs(root["paths"]).flatMap { path, item in
            let shared = item["parameters"]?.array().map(resolved) ?? []
            return pairs(item).filter { $0.0 != "parameters" }.map { method, node in
                ReferenceOperation(
                    id: node["operationId"]?.string ?? "",
                    method: method.uppercased(),
                    path: path,
                    tag: node["tags"]?.array().first?.string ?? "",
                    node: node,
                    parameters: shared + (node["parameters"]?.array().map(resolved) ?? [])
                )
            }
        }
    }

    /// A mapping's pairs in order.
    func pairs(_ node: Node?) -> [(String, Node)] {
        node?.mapping?.compactMap { key, value in key.string.map { ($0, value) } } ?? []
    }

    /// What a `$ref` points to, or the node itself.
    func resolved(_ node: Node) -> Node {
        var current = node
        for _ in 0..<8 {
            guard let reference = current["$ref"]?.string else { return current }
            var target: Node? = root
            for part in reference.dropFirst(2).split(separator: "/") { target = target?[String(part)] }
            guard let target else { return current }
            current = target
        }
        return current
    }

    /// A schema with the parts of `allOf` joined and the first real alternative of `oneOf` or `anyOf` taken.
    func merged(_ node: Node) -> Node {
        let node = resolved(node)
        if let alternatives = (node["oneOf"] ?? node["anyOf"])?.array(),
            let first = alternatives.first(where: { $0["type"]?.string != "null" })
        {
            return merged(first)
        }
        guard let parts = node["allOf"]?.array() else { return node }
        var fields: [(Node, Node)] = []
        var required: [Node] = []
        for part in parts.map(merged) {
            for (name, value) in pairs(part["properties"]) {
                fields.removeAll { $0.0.string == name }
                fields.append((Node(name), value))
            }
            required += part["required"]?.array() ?? []
        }
        return Node([
            (Node("type"), Node("object")), (Node("properties"), Node(fields)), (Node("required"), Node(required)),
        ])
    }

    /// A schema's type in a few words, with its limits.
    func typeName(_ node: Node) -> String {
        let target = merged(node)
        var text = target["type"]?.string ?? ""
        if let several = target["type"]?.array(), !several.isEmpty {
            text = several.compactMap(\.string).joined(separator: " or ")
        }
        if let items = target["items"] { text = "list of " + typeName(items) }
        if let values = target["enum"]?.array(), !values.isEmpty {
            text = values.compactMap(\.string).joined(separator: " | ")
        }
        if let format = target["format"]?.string { text += " (\(format))" }
        let lower = target["minimum"]?.string ?? target["exclusiveMinimum"]?.string.map { "more than " + $0 }
        switch (lower, target["maximum"]?.string) {
        case (let lower?, let upper?): text += ", \(lower) to \(upper)"
        case (let lower?, nil): text += ", \(lower) or more"
        case (nil, let upper?): text += ", \(upper) or less"
        case (nil, nil): break
        }
        if let fallback = target["default"]?.string { text += ", default \(fallback)" }
        return text.isEmpty ? "any" : text
    }
}
