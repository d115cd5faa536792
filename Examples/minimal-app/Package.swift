// swift-tools-version: 6.1

import PackageDescription

// An app without libcurl, OpenBLAS, built-in models, SQLite, YAML and the server: `traits: []` leaves all of it out.
let package = Package(
    name: "minimal-app",
    platforms: [.macOS(.v15), .iOS(.v18)],
    dependencies: [
        // From outside: .package(url: "https://example.org/martlet", from: "0.2.0", traits: []),
        .package(name: "martlet", path: "../..", traits: [])
    ],
    targets: [
        .target(name: "PriceTrainer", dependencies: [.product(name: "MartletClient", package: "martlet")]),
        .executableTarget(
            name: "URLSessionApp",
            dependencies: ["PriceTrainer", .product(name: "MartletURLSession", package: "martlet")]
        ),
        .executableTarget(name: "OwnTransportApp", dependencies: ["PriceTrainer"]),
    ]
)
