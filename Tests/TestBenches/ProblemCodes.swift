import Foundation
import Yams

/// The codes that openapi.yaml describes.
package enum ProblemCodes {
    private static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent()
        .deletingLastPathComponent().path

    private static func codes(_ schema: String) -> [String: [String: Any]] {
        let text = (try? String(contentsOfFile: repository + "/openapi.yaml", encoding: .utf8)) ?? ""
        let document = (try? Yams.load(yaml: text)) as? [String: Any]
        let schemas = (document?["components"] as? [String: Any])?["schemas"] as? [String: [String: Any]]
        return schemas?[schema]?["x-codes"] as? [String: [String: Any]] ?? [:]
    }

    /// Of problem documents, each with its statuses.
    package static let described: [String: Set<Int>] = codes("ProblemCode").mapValues {
        Set($0["status"] as? [Int] ?? [])
    }
    /// Of the overview's problems.
    package static let ofOverview = Set(codes("OverviewProblemCode").keys)

    /// The text of every source file of some modules, but for those whose path has one of some words.
    package static func sources(_ modules: [String], without words: [String] = []) throws -> [String] {
        try modules.flatMap { module in
            let directory = repository + "/Sources/" + module
            return try FileManager.default.subpathsOfDirectory(atPath: directory)
                .filter { path in path.hasSuffix(".swift") && !words.contains { path.contains($0) } }
                .map { try String(contentsOfFile: directory + "/" + $0, encoding: .utf8) }
        }
    }
}
