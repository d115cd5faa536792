import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// A version with all that it takes to use it elsewhere.
    func addArchiveRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.archive) { _, run, version in
            let version = try await coordinator.model(run: run.text, version: version.text)
            let run = try await coordinator.run(version.run)
            let card = ModelCard(
                run: run,
                version: version,
                round: version.version == 0
                    ? nil : try await coordinator.round(run: version.run, number: version.version),
                population: try await coordinator.population(run.population),
                claim: try await coordinator.claim(run: version.run, version: version.version),
                bases: try await bases(of: run)
            )
            let base = await coordinator.baseModel(of: run.specification)
            try await verify(version)
            if let base { try await verify(base.sha256, "the model file that the version builds on") }
            let files =
                [
                    ArchiveFile(name: "card.md", content: .bytes(Data(card.text.utf8))),
                    ArchiveFile(
                        name: "run.json",
                        content: .bytes(try WireCoding.encode(run.specification, pretty: true))
                    ),
                ]
                + (try modelFiles(
                    run.specification.model,
                    coordinator.blobs.path(sha256: version.sha256),
                    base.map { coordinator.blobs.path(sha256: $0.sha256) }
                ))
            let sizes = try files.map { try $0.byteCount }
            let name = "\(run.id)-v\(version.version)"
            let modified = Int(Date(wireTimestamp: version.createdAt)?.timeIntervalSince1970 ?? 0)
            return ServerResponse(
                status: 200,
                headers: [
                    .contentType: "application/x-tar", .contentDisposition: "attachment; filename=\"\(name).tar\"",
                ],
                body: .stream { send in
                    for (file, size) in zip(files, sizes) {
                        try await send(
                            TarArchive.header(name: "\(name)/\(file.name)", byteCount: size, modified: modified)
                        )
                        try await file.forEachBlock(send)
                        try await send(TarArchive.padding(after: size))
                    }
                    try await send(TarArchive.end)
                }
            )
        }
    }

    /// What a run's models build on, and what those do.
    private func bases(of run: RunView) async throws -> [ModelCard.Base] {
        var bases: [ModelCard.Base] = []
        var next = run.specification.model.base
        // A base was there before its run: there is no circle, and no model builds on so many.
        while let base = next, let version = base.version, bases.count < 16 {
            let run = try await coordinator.run(base.run)
            bases.append(
                .init(
                    run: run,
                    version: version,
                    population: try await coordinator.population(run.population),
                    claim: try await coordinator.claim(run: base.run, version: version)
                )
            )
            next = run.specification.model.base
        }
        return bases
    }
}
