// swift-tools-version: 6.1

import PackageDescription

let features: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

// What an app can leave out, with all that it brings: `.package(url: …, from: …, traits: [])`.
let curl = TargetDependencyCondition.when(traits: ["Curl"])
let openBLAS = TargetDependencyCondition.when(traits: ["OpenBLAS"])
let builtInModels = TargetDependencyCondition.when(traits: ["BuiltInModels"])
let server = TargetDependencyCondition.when(traits: ["Server"])

let package = Package(
    name: "martlet",
    platforms: [.macOS(.v15), .iOS(.v18), .tvOS(.v18), .watchOS(.v11), .visionOS(.v2)],
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        .library(name: "MartletClient", targets: ["MartletClient"]),
        .library(name: "MartletURLSession", targets: ["MartletURLSession"]),
        .library(name: "MartletOperator", targets: ["MartletOperator"]),
        .library(name: "MartletTesting", targets: ["MartletTesting"]),
    ],
    traits: [
        .trait(name: "Curl", description: "CurlTransport, over the system's libcurl"),
        .trait(name: "OpenBLAS", description: "matrix products of the system's OpenBLAS in place of Martlet's own"),
        .trait(name: "BuiltInModels", description: "the built-in models, tokenisers and readers of data files"),
        .trait(name: "Server", description: "the server and the commands, with SQLite and YAML"),
        .default(enabledTraits: ["Curl", "OpenBLAS", "BuiltInModels", "Server"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .plugin(name: "EmbedText", capability: .buildTool()),
        .systemLibrary(name: "CBLAS"),
        .systemLibrary(name: "CCurl"),
        .systemLibrary(name: "CEpoll"),
        .systemLibrary(name: "COpenSSL"),
        .target(name: "CLibrary", swiftSettings: features),
        .target(name: "StrictJSON", swiftSettings: features),
        .target(name: "Tensors", dependencies: ["CLibrary", "StrictJSON"], swiftSettings: features),
        .target(name: "CKernels"),
        .target(name: "UpdateCompression", dependencies: ["CKernels", "CLibrary", "Tensors"], swiftSettings: features),
        .target(name: "TrainerInterface", dependencies: ["Tensors"], swiftSettings: features),
        .target(
            name: "WireFormat",
            dependencies: [
                "StrictJSON", "Tensors", "UpdateCompression", .product(name: "Crypto", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "Aggregation",
            dependencies: ["CKernels", "Tensors", "UpdateCompression"],
            swiftSettings: features
        ),
        .target(
            name: "DifferentialPrivacy",
            dependencies: [
                "Tensors", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "PrivacyVectors",
            dependencies: ["DifferentialPrivacy", "StrictJSON"],
            swiftSettings: features
        ),
        .target(
            name: "SecureAggregation",
            dependencies: [
                "DifferentialPrivacy", "StrictJSON", "Tensors", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "Coordination",
            dependencies: [
                "Aggregation", "CKernels", "DifferentialPrivacy", "SecureAggregation", "StrictJSON", "Tensors",
                "UpdateCompression", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "SQLiteStorage",
            dependencies: [
                "Coordination", "WireFormat", .product(name: "GRDB", package: "GRDB.swift", condition: server),
                .product(name: "GRDBSQLite", package: "GRDB.swift", condition: server),
            ],
            swiftSettings: features
        ),
        .target(
            name: "HTTPServing",
            dependencies: [
                "CEpoll",
                "COpenSSL", .product(name: "HTTPTypes", package: "swift-http-types", condition: server),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "CoordinatorAPI",
            dependencies: [
                "Coordination", "HTTPServing", "SecureAggregation", "StrictJSON", "Tensors", "UpdateCompression",
                "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types", condition: server),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Yams", package: "Yams", condition: server),
            ],
            exclude: ["Pages"],
            swiftSettings: features,
            plugins: ["EmbedText"]
        ),
        .target(
            name: "HelperClient",
            dependencies: ["Coordination", "MartletTransport", "StrictJSON", "WireFormat"],
            swiftSettings: features
        ),
        .target(
            name: "HelperService",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HTTPServing", "SecureAggregation",
                "SQLiteStorage",
                "StrictJSON", "Tensors", "WireFormat", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "GRDB", package: "GRDB.swift", condition: server),
                .product(name: "HTTPTypes", package: "swift-http-types", condition: server),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "LocalTraining",
            dependencies: [
                .target(name: "CBLAS", condition: openBLAS), "CKernels", "StrictJSON", "Tensors", "TrainerInterface",
            ],
            swiftSettings: features
        ),
        .target(
            name: "MartletTransport",
            dependencies: [
                .target(name: "CCurl", condition: curl), "CLibrary", "StrictJSON", "Tensors", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "MartletOperator",
            dependencies: ["MartletTransport", "StrictJSON", "WireFormat"],
            swiftSettings: features
        ),
        .target(
            name: "MartletClient",
            dependencies: [
                "CKernels", "CLibrary", "DifferentialPrivacy",
                .target(name: "LocalTraining", condition: builtInModels), "MartletTransport", "SecureAggregation",
                "StrictJSON", "Tensors", "TrainerInterface", "UpdateCompression", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(name: "MartletURLSession", dependencies: ["MartletTransport"], swiftSettings: features),
        .target(
            name: "MartletTesting",
            dependencies: [
                "MartletClient", "MartletTransport", "StrictJSON", "Tensors", "UpdateCompression", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .executableTarget(
            name: "martlet",
            dependencies: [
                "CKernels", "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HelperClient", "HelperService",
                "HTTPServing", "LocalTraining", "MartletClient", "MartletOperator", "MartletTransport",
                "PrivacyVectors",
                "SQLiteStorage", "StrictJSON", "Tensors", "WireFormat",
                .product(name: "ArgumentParser", package: "swift-argument-parser", condition: server),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(name: "BenchmarkHarness", dependencies: ["StrictJSON", "WireFormat"], swiftSettings: features),
        .executableTarget(
            name: "Benchmarks",
            dependencies: [
                "Aggregation", "BenchmarkHarness", "CKernels", "Coordination", "DifferentialPrivacy", "LocalTraining",
                "MartletClient", "MartletOperator", "MartletTransport", "SQLiteStorage", "Tensors", "UpdateCompression",
                "WireFormat",
                .product(name: "ArgumentParser", package: "swift-argument-parser", condition: server),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
            ],
            swiftSettings: features
        ),
        .executableTarget(
            name: "Experiments",
            dependencies: [
                "Aggregation", "BenchmarkHarness", "Coordination", "DifferentialPrivacy", "LocalTraining",
                "MartletClient", "MartletOperator", "MartletTransport", "StrictJSON", "Tensors", "WireFormat",
                .product(name: "ArgumentParser", package: "swift-argument-parser", condition: server),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .executableTarget(
            name: "FaultJob",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HTTPServing", "LocalTraining",
                "MartletClient",
                "SQLiteStorage", "StrictJSON", "Tensors", "TestSupport", "WireFormat",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/FaultJob",
            exclude: ["faults.c"],
            swiftSettings: features
        ),
        .testTarget(
            name: "SnippetTests",
            dependencies: ["MartletClient", "MartletOperator", "MartletTesting", "MartletURLSession"],
            swiftSettings: features
        ),
        .testTarget(
            name: "SecureAggregationTests",
            dependencies: [
                "DifferentialPrivacy", "SecureAggregation", "Tensors",
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            resources: [.copy("Fixtures")],
            swiftSettings: features
        ),
        .testTarget(name: "TensorsTests", dependencies: ["Tensors"], swiftSettings: features),
        .target(
            name: "TestSupport",
            dependencies: ["StrictJSON", "WireFormat"],
            path: "Tests/TestSupport",
            swiftSettings: features
        ),
        .target(
            name: "TestBenches",
            dependencies: [
                "Coordination", "CoordinatorAPI", "HTTPServing", "LocalTraining", "MartletClient", "MartletTransport",
                "SQLiteStorage", "StrictJSON", "Tensors", "TestSupport", "WireFormat",
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"), .product(name: "Yams", package: "Yams"),
            ],
            path: "Tests/TestBenches",
            swiftSettings: features
        ),
        .testTarget(
            name: "CoordinationTests",
            dependencies: [
                "Aggregation", "Coordination", "DifferentialPrivacy", "LocalTraining", "SQLiteStorage", "StrictJSON",
                "Tensors", "TestBenches", "TestSupport", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["Fixtures"],
            swiftSettings: features
        ),
        .testTarget(
            name: "SQLiteStorageTests",
            dependencies: [
                "Coordination", "SQLiteStorage", "Tensors", "TestSupport", "WireFormat",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "Logging", package: "swift-log"),
            ],
            resources: [.copy("Fixtures")],
            swiftSettings: features
        ),
        .testTarget(
            name: "HTTPServingTests",
            dependencies: [
                "HTTPServing", "Tensors", "TestSupport", .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .testTarget(
            name: "IntegrationTests",
            dependencies: ["FaultJob", "LocalTraining", "Tensors", "TestSupport", "martlet"],
            swiftSettings: features
        ),
        .testTarget(
            name: "MartletTransportTests",
            dependencies: ["MartletTransport", "MartletURLSession", "TestSupport"],
            swiftSettings: features
        ),
        .testTarget(
            name: "MartletClientTests",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HTTPServing", "LocalTraining",
                "MartletClient",
                "MartletTesting", "MartletURLSession", "SecureAggregation", "StrictJSON", "Tensors", "TestBenches",
                "TestSupport", "UpdateCompression", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: features
        ),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HTTPServing", "LocalTraining",
                "MartletClient",
                "StrictJSON", "Tensors", "TestSupport",
                "UpdateCompression", "WireFormat", .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/FuzzTargets",
            swiftSettings: features
        ),
        .executableTarget(
            name: "Fuzz",
            dependencies: ["FuzzTargets", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            path: "Tests/Fuzz",
            swiftSettings: features
        ),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzTargets", "TestSupport"], swiftSettings: features),
        .testTarget(
            name: "HelperServiceTests",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HelperClient", "HelperService", "HTTPServing",
                "MartletTransport", "SecureAggregation", "SQLiteStorage", "StrictJSON", "Tensors", "TestBenches",
                "TestSupport", "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"), .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"), .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: features
        ),
        .testTarget(name: "StrictJSONTests", dependencies: ["StrictJSON"], swiftSettings: features),
        .testTarget(
            name: "WireFormatTests",
            dependencies: ["StrictJSON", "Tensors", "TestSupport", "WireFormat"],
            swiftSettings: features
        ),
        .testTarget(
            name: "CoordinatorAPITests",
            dependencies: [
                "Coordination", "CoordinatorAPI", "DifferentialPrivacy", "HTTPServing", "LocalTraining",
                "MartletClient", "MartletOperator", "MartletTransport",
                "SQLiteStorage", "StrictJSON", "Tensors", "TestBenches", "TestSupport", "UpdateCompression",
                "WireFormat",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"), .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: features
        ),
        .testTarget(
            name: "DifferentialPrivacyTests",
            dependencies: [
                "DifferentialPrivacy", "PrivacyVectors", "Tensors", "TestSupport",
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            resources: [.copy("Fixtures")],
            swiftSettings: features
        ),
        .testTarget(
            name: "UpdateCompressionTests",
            dependencies: ["Tensors", "TestSupport", "UpdateCompression"],
            swiftSettings: features
        ),
        .testTarget(
            name: "AggregationTests",
            dependencies: ["Aggregation", "Tensors", "UpdateCompression"],
            resources: [.copy("Fixtures")],
            swiftSettings: features
        ),
        .testTarget(
            name: "LocalTrainingTests",
            dependencies: ["CBLAS", "CKernels", "LocalTraining", "StrictJSON", "Tensors", "TestSupport"],
            resources: [.copy("Fixtures")],
            swiftSettings: features
        ),
    ]
)
