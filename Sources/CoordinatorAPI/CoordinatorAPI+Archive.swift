import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    func addArchiveRoute(to router: inout Router) {
        router.add("GET", "/v1/runs/{run}/models/{version}/archive") { request in
            try await requireReader(request)
            let version = try await model(request)
            let run = try await coordinator.run(version.run)
            let card = ModelCard(
                run: run,
                version: version,
                round: version.version == 0
                    ? nil : try await coordinator.round(run: version.run, number: version.version),
                population: try await coordinator.population(run.population)
            )
            let documents = [
                ("card.md", Data(card.text.utf8)),
                ("config.json", try WireCoding.encode(run.specification.model, pretty: true)),
                ("run.json", try WireCoding.encode(run.specification, pretty: true)),
            ]
            let name = "\(run.id)-v\(version.version)"
            let modified = Int(try Self.archiveTime(version.createdAt).timeIntervalSince1970)
            let path = coordinator.blobs.path(sha256: version.sha256)
            return ServerResponse(
                status: 200,
                headers: [
                    .contentType: "application/x-tar", .contentDisposition: "attachment; filename=\"\(name).tar\"",
                ],
                body: .stream { send in
                    for (file, data) in documents {
                        try await send(
                            TarArchive.header(name: "\(name)/\(file)", byteCount: data.count, modified: modified)
                                + data + TarArchive.padding(after: data.count)
                        )
                    }
                    try await send(
                        TarArchive.header(
                            name: "\(name)/model.safetensors",
                            byteCount: version.bytes,
                            modified: modified
                        )
                    )
                    let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
                    defer { try? file.close() }
                    while let block = try file.read(upToCount: 1 << 18), !block.isEmpty {
                        try await send([UInt8](block))
                    }
                    try await send(TarArchive.padding(after: version.bytes) + TarArchive.end)
                }
            )
        }
    }

    private static func archiveTime(_ text: String) throws -> Date {
        try Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
}
