import "./bundle.mjs";
import "./tour.mjs";
import "./work.mjs";
import "./connection.mjs";
import "./answers.mjs";
import "./firefox.mjs";
import "./safety.mjs";
import "./looks.mjs";
