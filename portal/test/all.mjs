import "./bundle.mjs";
import "./tour.mjs";
import "./safety.mjs";
import "./looks.mjs";
