import "./connection.mjs";
